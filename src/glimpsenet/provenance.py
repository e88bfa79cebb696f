"""Where a measurement comes from: what a JSON of results holds beside its numbers.

command     what was typed, without the folders of one machine
machine     device, processor, instruction set, threads, versions, commit
seeds       of everything random: data, weights, windows
"""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

from glimpsenet.devices import cpu_name
from glimpsenet.files import write_json

ELSEWHERE = "..."
"""Stands for the folders that lead to a file outside the working directory and the home directory."""


def provenance(device: torch.device, seeds: Iterable[int]) -> dict[str, Any]:
    """``command``, ``machine`` and ``seeds``, for a program that measures on ``device`` and writes its own JSON.

    Args:
        device: where the measured code ran.
        seeds: all that were used, repeated or not.
    """
    return {"command": typed_command(), "machine": describe_machine(device), "seeds": sorted(set(seeds))}


def write_measurement(file: Path, device: torch.device, seeds: Iterable[int], result: Mapping[str, Any]) -> str:
    """A measurement as JSON with its circumstances; what was written, in words."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {**provenance(device, seeds), **result})
    return f"wrote {file}"


def typed_command(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process as one would type it again on another machine.

    Args:
        arguments: program and arguments; this process's own if None.
    """
    program, *words = sys.argv if arguments is None else arguments
    return " ".join(map(_quoted, [*_program(Path(program)), *map(_portable_word, words)]))


def _quoted(word: str) -> str:
    return "~/" + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)


def _program(file: Path) -> list[str]:
    if file.name == "__main__.py":
        module = file.parent.name
        return [module] if module == "glimpsenet" else ["python", "-m", module]
    return ["python", portable(str(file))] if file.suffix == ".py" else [file.name]


def _portable_word(word: str) -> str:
    """An argument without this machine's folders; ``--flag=PATH`` keeps its flag."""
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return flag + equals + portable(value)


def portable(value: str) -> str:
    """A path relative to the working directory, else to the home directory, else its name alone.

    Args:
        value: whatever is no absolute path is returned as it is.
    """
    if not os.path.isabs(value):
        return value
    path = Path(os.path.normpath(value))
    for folder, name in ((Path.cwd(), "."), (Path.home(), "~")):
        if folder != Path(folder.anchor) and path.is_relative_to(folder):
            return str(Path(name) / path.relative_to(folder))
    return f"{ELSEWHERE}/{path.name}"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a measurement must say beside its numbers."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": gpu or device.type,
        "cpu": cpu_name(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "lightning": importlib.metadata.version("pytorch-lightning"),
        "glimpsenet": importlib.metadata.version("glimpsenet"),
        "commit": _commit(),
    }


def common_machine(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One description of the machines of several runs; what differs is told as "one / other"."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for machine in machines for name in machine):
        values = list(dict.fromkeys(machine.get(name) for machine in machines))
        found[name] = values[0] if len(values) == 1 else " / ".join(map(str, values))
    return found


def _commit() -> str | None:
    """The commit that this package is run from, "+" where files were changed since; None if it was installed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # The package's own folder must be under git's eyes, not merely inside somebody's checkout.
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], check=True, capture_output=True)
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")

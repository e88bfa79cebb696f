"""Golden values of the commands: pins their JSON output, deterministic values as numbers, others by name and type.

Each command runs in this process on a run folder with fixed weights and six fixed images; the JSON it prints or writes
goes to tests/golden/commands.json. For times, trained quantities, signs of gradients and machine details, only the
structure is pinned.

Command: ``python benchmarks/golden_commands.py`` rewrites the file.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import timm
import torch
from PIL import Image

from glimpsenet import cli, recipes, runs
from glimpsenet.config import Config
from glimpsenet.data.config import FolderConfig, NoAugmentation
from glimpsenet.models.config import MipmapConfig
from glimpsenet.training.config import TrainingConfig
from golden import SMALL, fill, rounded, smooth

PINNED = Path("tests/golden/commands.json")
NAMES = ["circle", "cross"]
BACKBONE = "backbone.safetensors"
VOLATILE = {"commit", "command", "machine", "seconds", "versions"}


def write_images(folder: Path) -> None:
    """Six smooth images of two classes in each split, with boxes.

    They have the model's size: torch resizes bytes by one grey level otherwise on other instruction sets.
    """
    rows = ["file,x0,y0,x1,y1"]
    images = (255 * smooth(18, 3, SMALL.image_size)).round().byte().movedim(1, -1).numpy()
    for place, image in enumerate(images):
        split, name = ("train", "val", "test")[place // 6], NAMES[place % 2]
        x, y = 4 + 4 * (place % 6), 26 - 4 * (place % 6)
        file = folder / split / name / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        rows.append(f"{file.relative_to(folder).as_posix()},{x},{y},{x + 10},{y + 10}")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")


def write_run(folder: Path, data: Path) -> None:
    """A run folder of an untrained model with fixed weights."""
    config = Config(
        model=replace(SMALL, sampling=MipmapConfig()),
        data=FolderConfig(data=data, augmentation=NoAugmentation()),
        training=TrainingConfig(max_steps=2),
    )
    description = runs.Description(config, NAMES, 3)
    model = description.build()
    fill(model)
    folder.mkdir(parents=True)
    runs.write_description(folder, description)
    runs.save_weights(model, folder)
    safetensors.torch.save_model(timm.create_model("test_resnet", num_classes=0), str(folder / BACKBONE))


@contextlib.contextmanager
def printed() -> Iterator[Path]:
    """What is written to standard output meanwhile, by whatever means, in a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stdout"
        sys.stdout.flush()
        keep = os.dup(1)
        try:
            with file.open("wb") as output:
                os.dup2(output.fileno(), 1)
                yield file
        finally:
            sys.stdout.flush()
            os.dup2(keep, 1)
            os.close(keep)


def run(*arguments: object) -> Any:
    """The JSON object that a command prints, if it prints one."""
    with printed() as file, contextlib.redirect_stdout(sys.__stdout__ or sys.stdout):
        cli.main([str(argument) for argument in arguments])
        (sys.__stdout__ or sys.stdout).flush()
        text = file.read_text()
    return json.loads(text) if text.startswith("{") else None


def structure(value: Any) -> Any:
    """The names; of a list, those of its first entry. What has no value this time (None) may have one the next."""
    if isinstance(value, dict):
        return {name: structure(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [structure(value[0])] if value else []
    return "text" if isinstance(value, str) else "value"


def without_circumstances(value: Any, folder: str) -> Any:
    """Without what differs from one machine or moment to the next; paths begin at ``folder``."""
    if isinstance(value, dict):
        return {
            name.replace(folder, ""): without_circumstances(entry, folder)
            for name, entry in value.items()
            if name not in VOLATILE
        }
    if isinstance(value, list):
        return [without_circumstances(entry, folder) for entry in value]
    return value.replace(folder, "").replace(os.sep, "/") if isinstance(value, str) else value


def cases(folder: Path) -> dict[str, Callable[[], Any]]:
    """Name of each command -> its JSON, from the run and images in ``folder``."""
    out, data, run_folder = folder / "out", folder / "data", folder / "run"
    one_image = data / "val" / NAMES[0] / "6.png"

    def written(name: str, *arguments: object) -> Any:
        run(*arguments)
        return json.loads((out / name).read_text())

    small = ("--data", data, "--backbone", "test_resnet", "--max-steps", 2)
    return {
        "evaluate": lambda: run("evaluate", run_folder, "--policy", "all", "--json"),
        "evaluate val": lambda: run("evaluate", run_folder, "--split", "val", "--json"),
        "predict": lambda: run("predict", run_folder, data / "test", "--top", 2, "--json"),
        "predict, early exit": lambda: run("predict", run_folder, one_image, "--exit-confidence", 0.2, "--json"),
        "inspect dataset": lambda: written("dataset.json", "inspect", "dataset", run_folder, "--out", out),
        "inspect quality": lambda: structure(
            written("quality.json", "inspect", "quality", run_folder, "--images", 2, "--points", 20, "--out", out)
        ),
        "train": lambda: structure(
            written(
                "summary.json",
                "train",
                "baseline",
                "--data",
                data,
                "--backbone",
                "glimpse_cnn",
                "--image-size",
                40,
                "--glimpse-size",
                10,
                "--batch-size",
                4,
                "--max-steps",
                2,
                "--workers",
                0,
                "--out",
                out,
            )
        ),
        "bench speed": lambda: structure(
            written(
                "speed.json",
                "bench",
                "speed",
                run_folder,
                "--batch-sizes",
                1,
                "--modes",
                "eager",
                "--training",
                2,
                "--repetitions",
                1,
                "--out",
                out / "speed.json",
            )
        ),
        "bench scaling": lambda: structure(
            written(
                "scaling.json",
                "bench",
                "scaling",
                run_folder,
                "--glimpses",
                1,
                2,
                "--image-sizes",
                40,
                60,
                "--batch-sizes",
                1,
                "--repetitions",
                1,
                "--out",
                out / "scaling.json",
            )
        ),
        "bench early-exit": lambda: structure(
            written(
                "exit.json",
                "bench",
                "early-exit",
                run_folder,
                "--batch-sizes",
                1,
                "--timed",
                4,
                "--blocks",
                2,
                "--within",
                0.9,
                "--out",
                out / "exit.json",
            )
        ),
        "bench robustness": lambda: structure(
            written(
                "robustness.json",
                "bench",
                "robustness",
                run_folder,
                "--images",
                2,
                "--steps",
                1,
                "--restarts",
                1,
                "--attacks",
                "mgnet",
                "pgd",
                "--corruptions",
                "brightness",
                "--severities",
                1,
                "--out",
                out / "robustness.json",
            )
        ),
        "bench localization": lambda: structure(
            written(
                "localization.json",
                "bench",
                "localization",
                "--methods",
                "best",
                "--task",
                "image-folder",
                *small,
                "--backbone-weights",
                run_folder / BACKBONE,
                "--out",
                out,
            )
        ),
        "reproduce": lambda: structure(
            written("report.json", "reproduce", "--rows", "baseline", "--image-size", 40, *small, "--out", out)
        ),
    }


def smaller_image_folder() -> Config:
    """The recipe on small images, read in this process."""
    config = recipes.image_folder()
    model = replace(config.model, image_size=SMALL.image_size, glimpse_size=32)
    return replace(config, model=model, training=replace(config.training, workers=0))


def names() -> list[str]:
    """Of all cases."""
    return list(cases(Path()))


def compute(name: str, folder: Path) -> Any:
    """One case, in a new folder."""
    write_images(folder / "data")
    write_run(folder / "run", folder / "data")
    with mock.patch.dict(recipes.RECIPES, {"image-folder": smaller_image_folder}):
        values = cases(folder)[name]()
    return rounded(without_circumstances(values, f"{folder}{os.sep}"))


def main() -> int:
    """Write the file anew."""
    torch.set_num_threads(1)
    results = {}
    for name in names():
        with tempfile.TemporaryDirectory() as folder:
            results[name] = compute(name, Path(folder).resolve())
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in results.items()]
    PINNED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

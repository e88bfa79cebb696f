"""Fault tolerance: a run killed at random moments and resumed ends with the weights of an undisturbed run.

    moment of each kill = uniform over the duration of the undisturbed run after its start, drawn for each process

The script starts the command line with ``--resume`` and kills it with SIGKILL, again and again, as often as requested;
the last process runs to the end. Every second kill waits until a checkpoint is being written (its temporary file
exists), so that kills also hit saving. Then weights, last checkpoint, metrics.csv and localization.csv are compared,
byte for byte.

Command: ``python benchmarks/faults.py [--kills 20] [--steps 60] [--seed 0]``; writes ``benchmarks/results/faults.json``
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from glimpsenet.files import write_json
from glimpsenet.provenance import provenance

RESULTS = Path("benchmarks/results/faults.json")
PATIENCE = 300.0
"""Seconds after which a process that should have come to its end is said to hang."""


def command(out: Path, steps: int) -> list[str]:
    """A small run on digit scenes that saves often."""
    size = ["--train-scenes", "512", "--val-scenes", "64", "--batch-size", "8", "--image-size", "40"]
    size += ["--glimpse-size", "16", "--num-glimpses", "2", "--precision", "float32", "--device", "cpu"]
    schedule = ["--max-steps", str(steps), "--validations", str(max(1, steps // 2))]
    return [sys.executable, "-m", "glimpsenet", "train", "digits", *size, *schedule, "--out", str(out), "--resume"]


def train(out: Path, steps: int) -> None:
    """One process that nobody disturbs."""
    subprocess.run(command(out, steps), check=True, capture_output=True, timeout=PATIENCE)


def kill(out: Path, steps: int, rng: random.Random, seconds: float, while_saving: bool) -> str | None:
    """One process, killed; what it was doing (None if it had come to its end before)."""
    process = subprocess.Popen(command(out, steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics, checkpoints = out / "metrics.csv", out / "checkpoints"
    begun = metrics.stat().st_mtime_ns if metrics.exists() else 0
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_mtime_ns > begun):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{out}: nothing is written")
        time.sleep(0.005)
    until = time.monotonic() + rng.uniform(0, seconds)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    while while_saving and process.poll() is None and not list(checkpoints.glob(".*.part")):
        pass  # a checkpoint is written within milliseconds
    process.send_signal(signal.SIGKILL)
    if process.wait(PATIENCE) != -signal.SIGKILL:
        return None
    return "saving" if list(checkpoints.glob(".*.part")) else "training"


def differences(one: Path, other: Path) -> list[str]:
    """Names of what two runs do not share bit for bit."""
    found = [
        name for name in ("metrics.csv", "localization.csv") if (one / name).read_bytes() != (other / name).read_bytes()
    ]
    weights, others = (safetensors.torch.load_file(run / "model.safetensors") for run in (one, other))
    found += [name for name in weights if name not in others or not torch.equal(weights[name], others[name])]
    last, last_other = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other))
    found += [part for part in ("global_step", "lr_schedulers") if last[part] != last_other[part]]
    for part in ("state_dict", "optimizer_states", "random_state"):
        try:
            torch.testing.assert_close(last[part], last_other[part], rtol=0, atol=0)
        except AssertionError as error:
            found.append(f"{part}: {str(error).splitlines()[0]}")
    return found


def measure(kills: int, steps: int, seed: int) -> dict[str, Any]:
    """Disturb one run ``kills`` times and compare it with an undisturbed one."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, disturbed = Path(folder) / "whole", Path(folder) / "disturbed"
        begun = time.monotonic()
        train(whole, steps)
        seconds = time.monotonic() - begun
        # Short lives, so that the run is not over before the last kill: it advances by some steps a life at most.
        life = seconds / 8
        done: list[str] = []
        over = 0
        while len(done) < kills:
            what = kill(disturbed, steps, rng, life, while_saving=len(done) % 2 == 1)
            if what is None:  # it was over: begin another one, the kills so far still count
                over += 1
                compared = differences(whole, disturbed)
                if compared:
                    return {"kills": len(done), "differences": compared}
                for file in sorted(disturbed.rglob("*"), reverse=True):
                    file.rmdir() if file.is_dir() else file.unlink()
                continue
            done.append(what)
            print(f"{len(done)}/{kills} killed while {what}", flush=True)
        train(disturbed, steps)
        return {
            "kills": len(done),
            "while_saving": done.count("saving"),
            "while_training": done.count("training"),
            "runs_that_ended": over + 1,
            "differences": differences(whole, disturbed),
            "left_over": [file.name for file in disturbed.rglob("*.part")],
        }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    result = measure(chosen.kills, chosen.steps, chosen.seed)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out, {**provenance(torch.device("cpu"), [chosen.seed]), **result})
    print(f"{result['kills']} kills; differences: {result['differences'] or 'none'}; wrote {chosen.out}")
    sys.exit(bool(result["differences"]))


if __name__ == "__main__":
    main()

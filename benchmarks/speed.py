"""All figures of docs/speed.md, by one command, on a machine that does nothing else.

    inference, training   glimpsenet bench speed      ResNet-18, 224 px, four glimpses of 96 px, beside ResNet-18 at 224
    learning              200 training steps in two ways: MGNet's recipe in float32, and the fastest of bench speed
    scaling               glimpsenet bench scaling
    early-exit            glimpsenet bench early-exit on digit scenes, beside plain backbones; trains them if need be
    pipeline              benchmarks/pipeline.py

Command: ``python benchmarks/speed.py [--only PART ...] [--smoke]``; leaves ``benchmarks/results/speed-*.json``, which
``python benchmarks/page_figures.py`` puts into the page. --smoke takes minutes, for no figures to keep.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from glimpsenet.devices import computes_in_bfloat16

RESULTS = Path("benchmarks/results")
RUNS = Path("runs/speed")
PARTS = ("speed", "learning", "scaling", "early-exit", "pipeline")
PLAIN_SIZES = (20, 32, 48)
"""Pixels of the whole image that plain backbones are trained on; at 48 they take more operations than four looks."""
LEARNING_RATE = 0.01
PLAIN = "--num-glimpses 1 --fusion none --spatial-clue none --localization linear --objective pathwise"
PLAIN_SCHEDULE = "--random-until 0 --diversity 0"


def run(*command: object) -> None:
    """A command of the library, or a script, in a process of its own."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, *words], check=True)


def glimpsenet(*command: object) -> None:
    """See :func:`run`."""
    run("-m", "glimpsenet", *command)


def speed(out: Path, smoke: bool) -> None:
    """Targets 1 and 2: training and inference of ResNet-18."""
    target: list[object] = ["resnet18", "--device", "cpu"]
    if smoke:
        target = ["glimpse_cnn", "--device", "cpu", "--image-size", 48, "--glimpse-size", 16, "--repetitions", 1]
    glimpsenet("bench", "speed", *target, "--training", 32, "--out", out / "speed-resnet18.json")
    if computes_in_bfloat16(torch.device("cpu")):
        half = ["--precision", "bfloat16", "--batch-sizes", 32, "--training", 32]
        glimpsenet("bench", "speed", *target, *half, "--out", out / "speed-resnet18-bfloat16.json")


def scaling(out: Path, smoke: bool) -> None:
    """Cost against T, image size and batch."""
    chosen: list[object] = ["glimpse_cnn", "--repetitions", 1] if smoke else ["resnet18"]
    glimpsenet("bench", "scaling", *chosen, "--device", "cpu", "--out", out / "speed-scaling.json")


def learning(out: Path, smoke: bool) -> None:
    """Loss of 200 steps on enlarged digit scenes, the same scenes for both ways."""
    from glimpsenet.bench.subjects import build_subject
    from glimpsenet.bench.training import training_step
    from glimpsenet.config import Config, DigitsConfig, ModelConfig
    from glimpsenet.data.digits import DigitScenes
    from glimpsenet.data.loading import FreshStream, create_loader
    from glimpsenet.files import write_json
    from glimpsenet.provenance import provenance

    cpu, steps, batch = torch.device("cpu"), 3 if smoke else 200, 4 if smoke else 32
    model = ModelConfig(backbone="glimpse_cnn" if smoke else "resnet18")
    subject = build_subject(Config(model=model), 1, cpu, num_classes=10)
    dtype = torch.bfloat16 if computes_in_bfloat16(cpu) else torch.float32
    ways = {
        "reference": training_step(subject, "eager", torch.float32, LEARNING_RATE),
        "fast": training_step(subject, "fast", dtype, LEARNING_RATE),
    }
    scenes = DigitScenes(DigitsConfig(train_scenes=steps * batch), "train")
    losses: dict[str, list[float]] = {name: [] for name in ways}
    loader = iter(create_loader(scenes, FreshStream(len(scenes), 0), batch))
    for place in range(steps):
        scene = next(loader)
        images = F.interpolate(scene.images, size=model.image_size, mode="bilinear")
        boxes = scene.boxes * (model.image_size / scene.images.shape[-1])
        for name, step in ways.items():
            losses[name].append(step(images, scene.labels, boxes))
        if place % 20 == 0:
            print(f"step {place}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in losses.items()))
    values: dict[str, Any] = {"batch": batch, "precision": str(dtype).removeprefix("torch."), "losses": losses}
    write_json(out / "speed-learning.json", {**provenance(cpu, [subject.config.seed]), **values})


def early_exit(out: Path, smoke: bool) -> None:
    """Target 2's second half: a trained digit model, 10,000 scenes."""
    folder = RUNS / "smoke" if smoke else RUNS
    short = "--max-steps 4 --train-scenes 64 --val-scenes 8 --batch-size 8 --validations 1" if smoke else ""
    size = "--scenes 20 --blocks 2" if smoke else "--scenes 10000 --blocks 10"
    settings = f"{short} --device cpu --resume".split()
    glimpsenet("train", "digits", *settings, "--out", folder / "digits")
    plain = [folder / f"plain-{pixels}" for pixels in PLAIN_SIZES]
    for run_folder, pixels in zip(plain, PLAIN_SIZES, strict=True):
        sizes = [*PLAIN.split(), *PLAIN_SCHEDULE.split(), "--glimpse-size", pixels]
        glimpsenet("train", "digits", *sizes, *settings, "--out", run_folder)
    measured = [folder / "digits", "--plain", *plain, *size.split(), "--device", "cpu"]
    glimpsenet("bench", "early-exit", *measured, "--out", out / "speed-early-exit.json")


def pipeline(out: Path, smoke: bool) -> None:
    """Target 3: reading images."""
    run("benchmarks/pipeline.py", *(["--smoke"] if smoke else []), "--out", out / "speed-pipeline.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results")
    chosen = parser.parse_args(arguments)
    out = chosen.out or (RUNS / "smoke" / "results" if chosen.smoke else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    parts = {"speed": speed, "learning": learning, "scaling": scaling, "early-exit": early_exit, "pipeline": pipeline}
    for part in chosen.only:
        parts[part](out, chosen.smoke)


if __name__ == "__main__":
    main()

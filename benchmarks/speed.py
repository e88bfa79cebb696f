"""Measure all numbers of docs/speed.md with one command, on an otherwise idle machine.

    train        the runs for early-exit: recipe digits, plain backbones, three seeds each (an hour; nothing is timed)
    speed        glimpsenet bench speed: ResNet-18 with four glimpses of 96 px, against ResNet-18 at 224 px, same mode
    scaling      glimpsenet bench scaling: the same on larger images
    early-exit   glimpsenet bench early-exit on digit scenes, against plain backbones
    learning     200 training steps in two ways: MGNet's recipe in float32, and the fastest of bench speed
    pipeline     benchmarks/pipeline.py

Command: ``python benchmarks/speed.py [--only PART ...] [--runs RUN ...] [--plain RUN ...] [--smoke]``; writes
``benchmarks/results/speed-*.json``, which ``python benchmarks/page_figures.py`` puts into the page. ``--runs`` and
``--plain`` (may be empty) take early exit's runs from elsewhere. ``--smoke`` takes minutes; its numbers are not kept.
"""

import argparse
import shlex
import shutil
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
FIGURE = Path("docs/images/speed/early-exit.png")
SEEDS = (0, 1, 2)
PLAIN_SIZES = (20, 32, 48)
"""Pixels of the whole image that plain backbones are trained on; at 48 they take more FLOPs than four glimpses."""
LEARNING_RATE = 0.01
SHORT = "--max-steps 4 --train-scenes 64 --val-scenes 8 --test-scenes 8 --batch-size 8 --validations 1"


def run(*command: object) -> None:
    """A command of the library, or a script, in a process of its own."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, *words], check=True)


def glimpsenet(*command: object) -> None:
    """See :func:`run`."""
    run("-m", "glimpsenet", *command)


def run_folders(name: str, smoke: bool) -> list[Path]:
    """One a seed."""
    return [(RUNS / "smoke" if smoke else RUNS) / name / f"seed-{seed}" for seed in SEEDS]


def speed(out: Path, smoke: bool) -> None:
    """Training and inference of ResNet-18."""
    target: list[object] = ["resnet18", "--device", "cpu"]
    if smoke:
        target = ["glimpse_cnn", "--device", "cpu", "--image-size", 48, "--glimpse-size", 16, "--repetitions", 1]
    glimpsenet("bench", "speed", *target, "--training", 32, "--out", out / "speed-resnet18.json")
    if computes_in_bfloat16(torch.device("cpu")):
        half = ["--precision", "bfloat16", "--batch-sizes", 32, "--training", 32]
        glimpsenet("bench", "speed", *target, *half, "--out", out / "speed-resnet18-bfloat16.json")


def scaling(out: Path, smoke: bool) -> None:
    """Cost against T, image size and batch, beside the plain backbone."""
    chosen: list[object] = ["resnet18"]
    if smoke:
        chosen = ["glimpse_cnn", "--repetitions", 1, "--image-sizes", 224, 256, "--batch-sizes", 1, 2]
    glimpsenet("bench", "scaling", *chosen, "--device", "cpu", "--out", out / "speed-scaling.json")


def learning(out: Path, smoke: bool) -> None:
    """Loss of 200 steps on enlarged digit scenes, the same scenes for both ways."""
    from glimpsenet.bench.subjects import build_subject
    from glimpsenet.bench.training import training_step
    from glimpsenet.config import Config
    from glimpsenet.data.config import DigitsConfig
    from glimpsenet.data.digits import DigitScenes
    from glimpsenet.data.loading import create_loader
    from glimpsenet.data.streams import FreshStream
    from glimpsenet.files import write_json
    from glimpsenet.models.config import ModelConfig
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


def train(runs: Sequence[Path] | None, plain: Sequence[Path] | None, smoke: bool) -> None:
    """What early exit is measured on, but for what comes from elsewhere; goes on where it stopped."""
    settings = [*(SHORT.split() if smoke else []), "--device", "cpu", "--resume"]
    series: dict[str, list[object]] = {} if runs else {"digits": ["digits"]}
    if plain is None:
        for pixels in PLAIN_SIZES:
            series[f"plain-{pixels}"] = ["digits-whole-image", "--glimpse-size", pixels]
    for name, own in series.items():
        for seed, folder in zip(SEEDS, run_folders(name, smoke), strict=True):
            glimpsenet("train", *own, *settings, "--seed", seed, "--out", folder)


def early_exit(out: Path, runs: Sequence[Path] | None, plain: Sequence[Path] | None, smoke: bool) -> None:
    """Runs of the recipe digits, 10,000 scenes."""
    runs = runs or run_folders("digits", smoke)
    if plain is None:
        plain = [folder for pixels in PLAIN_SIZES for folder in run_folders(f"plain-{pixels}", smoke)]
    beside = ["--plain", *plain] if plain else []
    size = "--scenes 20 --timed 20 --blocks 2" if smoke else "--scenes 10000 --timed 1000 --blocks 10"
    result = out / "speed-early-exit.json"
    glimpsenet("bench", "early-exit", *runs, *beside, *size.split(), "--device", "cpu", "--out", result)
    if out == RESULTS:
        shutil.move(result.with_suffix(".png"), FIGURE)


def pipeline(out: Path, smoke: bool) -> None:
    """Target 3: reading images."""
    run("benchmarks/pipeline.py", *(["--smoke"] if smoke else []), "--out", out / "speed-pipeline.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("train", "speed", "scaling", "early-exit", "learning", "pipeline")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--runs", type=Path, nargs="+", help="of the recipe digits, which differ in their seed only")
    parser.add_argument("--plain", type=Path, nargs="*", help="plain backbones: of each size one for every run")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results")
    chosen = parser.parse_args(arguments)
    out = chosen.out or (RUNS / "smoke" / "results" if chosen.smoke else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    work = {
        "train": lambda: train(chosen.runs, chosen.plain, chosen.smoke),
        "speed": lambda: speed(out, chosen.smoke),
        "scaling": lambda: scaling(out, chosen.smoke),
        "early-exit": lambda: early_exit(out, chosen.runs, chosen.plain, chosen.smoke),
        "learning": lambda: learning(out, chosen.smoke),
        "pipeline": lambda: pipeline(out, chosen.smoke),
    }
    for part in chosen.only:
        work[part]()


if __name__ == "__main__":
    main()

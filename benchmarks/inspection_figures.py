"""The figures of docs/inspection.md, except that of gradient quality, and the numbers in its text.

    train     the paper's localization under other gradient factors and auxiliary weights, three seeds each
    training  factor.png, auxiliary.png: for seed 0; all seeds' numbers go into benchmarks/results/inspection.json
    scene     inject.png, arrows.png, sweep.png, tx.gif, field.png: one held-out scene, a run that uses its windows
    dataset   dataset.png, examples.png: the paper's localization over all held-out scenes

The scene is the first that the run gets wrong with its own windows and right with true ones. All figures show digit
scenes.

Command: ``python benchmarks/inspection_figures.py [--only PART ...] [--reader RUN] [--paper RUN]`` with runs of
``glimpsenet bench localization``, methods ``best`` and ``pathwise-mipmap``
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from glimpsenet.bench.localization import change
from glimpsenet.config import Config
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.data.sample import Sample
from glimpsenet.errors import UserError
from glimpsenet.files import write_json
from glimpsenet.inspection.arrows import arrows
from glimpsenet.inspection.dataset import scan_dataset
from glimpsenet.inspection.field import field
from glimpsenet.inspection.figures import save_figure
from glimpsenet.inspection.gradients import Scene, observe
from glimpsenet.inspection.injection import Windows, inject
from glimpsenet.inspection.statistics import Statistics, plot_statistics, read_statistics
from glimpsenet.inspection.sweep import PARAMETERS, animate_sweep, plot_sweeps, sweep
from glimpsenet.policies.baselines import FixedGlimpses, OracleGlimpses
from glimpsenet.policies.config import LinearConfig
from glimpsenet.provenance import provenance
from glimpsenet.recipes import digits, with_papers_localization
from glimpsenet.runs import SUMMARY, Run, load_run
from glimpsenet.training.fit import fit

PICTURES = Path("docs/images/inspection")
RESULT = Path("benchmarks/results/inspection.json")
RUNS = Path("runs/inspection")
SEEDS = (0, 1, 2)
EARLY = 60
"""Optimiser steps after which weights are told too."""
PICTURE_OF = {"gradient_factor": "factor.png", "auxiliary_weight": "auxiliary.png"}
SGD = {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4, "gradient_clip": None}


def experiments(max_steps: int | None = None) -> dict[str, dict[str, Config]]:
    """What is compared -> its values -> configuration."""
    base = with_papers_localization(digits())
    factors = {
        f"{value:g}": change(
            base, model={"policy": LinearConfig(gradient_factor=value)}, max_steps=max_steps or 400, **SGD
        )
        for value in (1.0, 0.02)
    }
    weights = {
        f"{value:g}": change(
            base, model={"scale_range": (0.15, 0.99)}, max_steps=max_steps or 250, auxiliary_weight=value
        )
        for value in (0.6, 0.0)
    }
    return {"gradient_factor": factors, "auxiliary_weight": weights}


def folder_of(compared: str, value: str, seed: int) -> Path:
    """Of one run."""
    return RUNS / compared.replace("_", "-") / value / f"seed-{seed}"


def train() -> None:
    """Every run that is not finished."""
    for compared, configs in experiments().items():
        for value, config in configs.items():
            for seed in SEEDS:
                folder = folder_of(compared, value, seed)
                if not (folder / SUMMARY).exists():
                    fit(replace(config, seed=seed), folder, resume=True, device="cpu")
                    print(f"trained {folder}", flush=True)


def training() -> None:
    """Curves of seed 0, numbers of all."""
    found: dict[str, Any] = {}
    for compared, configs in experiments().items():
        read = {value: [read_statistics(folder_of(compared, value, seed)) for seed in SEEDS] for value in configs}
        named = {f"{compared.replace('_', ' ')} {value}": statistics[0] for value, statistics in read.items()}
        save_figure(plot_statistics(named), PICTURES / PICTURE_OF[compared])
        found[compared] = {
            value: [{"seed": seed, **summarize(one)} for seed, one in zip(SEEDS, statistics, strict=True)]
            for value, statistics in read.items()
        }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULT, {**provenance(torch.device("cpu"), SEEDS), **found})


def summarize(statistics: Statistics) -> dict[str, float]:
    """The largest weight at first, early and at the end; where windows ended, and how far they differ over images."""
    weights = list(statistics.of("weight").values())
    early = int((weights[0].step <= EARLY).sum()) - 1
    largest = {"at first": 0, f"after {EARLY} steps": early, "at the end": -1}
    told = {
        f"largest weight {when}": float(max(one.largest[place] for one in weights)) for when, place in largest.items()
    }
    for name in ("s", "tx", "ty"):
        last = [series for _, series in sorted(statistics.outputs(name).items())][-1]
        told |= {f"{name} at the end": float(last.mean[-1]), f"its spread over images ({name})": float(last.std[-1])}
    return told


def hard_scene(run: Run) -> Sample:
    """The first held-out image that a run gets wrong by itself and right with true windows.

    Raises:
        UserError: if there is none.
    """
    _, images = open_data(run.config, run.classes, run.channels).held_out()
    scale_range = run.config.model.scale_range
    for batch in create_loader(images, InOrder(len(images)), 64):
        pixels = run.model.normalization(batch.images)
        with torch.no_grad():
            own, true = (
                run.model(pixels, policy=policy).logits[:, -1].argmax(-1) == batch.labels
                for policy in (None, OracleGlimpses(scale_range, batch.boxes))
            )
        if bool((~own & true).any()):
            return images[0, int(batch.places[(~own & true).nonzero()[0, 0]])]
    raise UserError(f"{run.folder} gets no held-out image wrong that it gets right with true windows")


def true_window(run: Run, sample: Sample) -> tuple[float, float, float]:
    """What the oracle shows."""
    assert sample.image is not None
    oracle = OracleGlimpses(run.config.model.scale_range, sample.box[None])
    s, tx, ty = observe(run.model, sample.image, sample.label, policy=oracle).windows[1].tolist()
    return s, tx, ty


def at(run: Run, sample: Sample, windows: Windows) -> Scene:
    """The scene with windows injected."""
    assert sample.image is not None
    return observe(run.model, sample.image, sample.label, policy=FixedGlimpses(windows, otherwise=run.model.policy))


def scene(reader: Path) -> None:
    """One scene through every tool that takes one."""
    run = load_run(reader)
    sample = hard_scene(run)
    assert sample.image is not None
    s, tx, ty = window = true_window(run, sample)
    shown = {2: window, 3: window}
    inject(run.model, sample.image, shown, label=sample.label, classes=run.classes).save(PICTURES / "inject.png")
    room = 1 - s
    beside = min(max(tx - s if tx > 0 else tx + s, -room), room), min(max(ty - s if ty > 0 else ty + s, -room), room)
    opposite = (-room if tx > 0 else room), (-room if ty > 0 else room)
    three = {2: window, 3: (s, *beside), 4: (s, *opposite)}
    arrows(at(run, sample, three), classes=run.classes).save(PICTURES / "arrows.png")
    around = at(run, sample, {2: window})
    sweeps = [sweep(around, name, scale_range=run.config.model.scale_range) for name in PARAMETERS]
    save_figure(plot_sweeps(sweeps), PICTURES / "sweep.png")
    animate_sweep(around, sweeps[1], PICTURES / "tx.gif")
    field(around, scale=s).save(PICTURES / "field.png")
    print(f"{reader}: scene {sample.place}, class {run.classes[sample.label]}, true window {s:.3g},{tx:.3g},{ty:.3g}")


def dataset(paper: Path) -> None:
    """Where the paper's localization looks, over the held-out scenes."""
    run = load_run(paper)
    _, images = open_data(run.config, run.classes, run.channels).held_out()
    loader = create_loader(images, InOrder(len(images)), 64)
    paths = scan_dataset(run.model, loader, image_size=run.config.model.image_size, classes=run.classes)
    paths.save(PICTURES / "dataset.png")
    save_figure(paths.plot_examples(), PICTURES / "examples.png")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("train", "training", "scene", "dataset")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--reader", type=Path, default=Path("runs/localization/best/seed-0"))
    parser.add_argument("--paper", type=Path, default=Path("runs/localization/pathwise-mipmap/seed-0"))
    chosen = parser.parse_args(arguments)
    work = {
        "train": train,
        "training": training,
        "scene": lambda: scene(chosen.reader),
        "dataset": lambda: dataset(chosen.paper),
    }
    for part in chosen.only:
        work[part]()


if __name__ == "__main__":
    main()

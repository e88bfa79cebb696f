"""Is the gradient of windows useful in a model that uses its windows, and does better sampling improve it?

    bilinear, mipmap, linearized  one model with three glimpse generators, same weights and windows; linearized
                                  computes exactly bilinear's glimpses, so only the gradient differs

A model that ignores its windows has no gradient to measure, so each run must gain ``LEAST_GAIN`` in accuracy from true
windows. Sweeps start from random windows, and from true ones, which show the digit. Each model has its own held-out
scenes, so the models' sweeps are independent and can be pooled. Measures: see ``glimpsenet/inspection/quality.py``.

Command: ``python benchmarks/gradient_quality.py RUN... [--scenes 300] [--points 100]`` with runs of ``glimpsenet bench
localization`` (method ``best``, one per seed); writes ``benchmarks/results/gradient-quality.json`` and the figure of
``docs/inspection.md``
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.data.sample import Sample, Split
from glimpsenet.errors import UserError
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.files import write_json
from glimpsenet.inspection.figures import save_figure
from glimpsenet.inspection.quality import (
    GradientQuality,
    compare_qualities,
    format_table,
    gradient_quality,
    pool,
)
from glimpsenet.models.sampling import BilinearGlimpses, GlimpseGenerator, LinearizedGlimpses, MipmapGlimpses
from glimpsenet.policies.base import Policy
from glimpsenet.policies.baselines import PolicyName, baseline_policy
from glimpsenet.provenance import portable, provenance
from glimpsenet.runs import Run, load_run
from glimpsenet.tables import print_table

RESULT = Path("benchmarks/results/gradient-quality.json")
FIGURE = Path("docs/images/inspection/quality.png")
GENERATORS: dict[str, type[GlimpseGenerator]] = {
    "bilinear": BilinearGlimpses,
    "mipmap": MipmapGlimpses,
    "linearized": LinearizedGlimpses,
}
AROUND = ("random", "true")
LEAST_GAIN = 0.15
"""Accuracy that true windows must add to the first glimpse's: less, and a model hardly reads them."""


def open_reader(folder: Path) -> tuple[Run, dict[str, float]]:
    """A run that reads its windows, and its held-out accuracy after the last glimpse by policy.

    Raises:
        UserError: if it does not, with both accuracies.
    """
    run = load_run(folder)
    _, images = open_data(run.config, run.classes, run.channels).held_out()
    policies: tuple[PolicyName, ...] = ("none", "random", "learned", "oracle")
    accuracy = {
        policy: evaluate(
            run.model,
            create_loader(images, InOrder(len(images)), 64),
            policy=policy,
            scale_range=run.config.model.scale_range,
            image_size=run.config.model.image_size,
            classes=run.classes,
        )["accuracy"][-1]
        for policy in policies
    }
    if accuracy["oracle"] - accuracy["none"] < LEAST_GAIN:
        raise UserError(
            f"{folder} hardly reads its windows: {accuracy['oracle']:.3f} with true ones, {accuracy['none']:.3f} "
            f"without any; its gradient can be judged only where they add {LEAST_GAIN:.2f}"
        )
    return run, accuracy


def held_out_scenes(run: Run, first: int, count: int) -> tuple[Split, list[Sample]]:
    """``count`` held-out images from ``first`` on.

    Raises:
        UserError: if there are not as many.
    """
    split, images = open_data(run.config, run.classes, run.channels).held_out()
    if first + count > len(images):
        raise UserError(f"{run.folder} has {len(images)} {split} images; {first + count} are needed: take fewer scenes")
    return split, [images[0, index] for index in range(first, first + count)]


def measure(run: Run, samples: Sequence[Sample], points: int, seed: int) -> dict[str, dict[str, GradientQuality]]:
    """Around which windows -> generator -> quality."""
    scale_range = run.config.model.scale_range
    pairs = [(sample.image, sample.label) for sample in samples if sample.image is not None]
    results: dict[str, dict[str, GradientQuality]] = {around: {} for around in AROUND}
    for name, generator in GENERATORS.items():
        sampled = generator(run.model.generator.glimpse_size)
        policies: dict[str, Policy | list[Policy]] = {
            "random": baseline_policy("random", scale_range, seed=seed),
            "true": [baseline_policy("oracle", scale_range, boxes=sample.box[None]) for sample in samples],
        }
        for around in AROUND:
            settings: dict[str, Any] = {"points": points, "scale_range": scale_range, "policy": policies[around]}
            results[around][name] = gradient_quality(run.model, pairs, generator=sampled, **settings)
            print(f"measured {run.folder} through {name} around {around} windows", flush=True)
    return results


def write(
    file: Path, models: Sequence[Mapping[str, Any]], qualities: Sequence[dict[str, dict[str, GradientQuality]]]
) -> dict[str, GradientQuality]:
    """Write what was measured, model by model and pooled; returns the pooled estimates by a name to show."""
    pooled = {
        around: {name: pool([quality[around][name] for quality in qualities]) for name in GENERATORS}
        for around in AROUND
    }
    values = {
        **provenance(torch.device("cpu"), [model["seed"] for model in models]),
        "models": models,
        "quality": {
            around: {
                name: {
                    "pooled": quality.to_dict(),
                    "models": [one[around][name].to_dict() for one in qualities],
                }
                for name, quality in named.items()
            }
            for around, named in pooled.items()
        },
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, values)
    return {
        f"{name}, around {around} windows": quality
        for around, named in pooled.items()
        for name, quality in named.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write the numbers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--scenes", type=int, default=300, help="of each model")
    parser.add_argument("--points", type=int, default=100, help="of each sweep")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    chosen = parser.parse_args(arguments)
    models, qualities = [], []
    for place, (run, accuracy) in enumerate([open_reader(folder) for folder in chosen.runs]):
        split, samples = held_out_scenes(run, place * chosen.scenes, chosen.scenes)
        qualities.append(measure(run, samples, chosen.points, seed=place))
        models.append(
            {
                "run": portable(str(run.folder)),
                "seed": run.config.seed,
                "sampling": run.config.model.sampling.kind,
                "accuracy": accuracy,
                "split": split,
                "scenes": [place * chosen.scenes, (place + 1) * chosen.scenes],
            }
        )
    named = write(chosen.out, models, qualities)
    head, *rows = format_table(named)
    print_table("gradient quality, models pooled, 95% intervals", head, rows)
    save_figure(compare_qualities(named), chosen.figure)
    print(f"wrote {chosen.out} and {chosen.figure}")


if __name__ == "__main__":
    main()

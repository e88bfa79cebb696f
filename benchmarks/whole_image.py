"""Glimpses against the whole image: photos with small objects, same backbone, epochs and augmentation.

    difference = mean over photos of (share of seeds right with glimpses - share of seeds right on the whole image)

with a paired bootstrap over the photos of test (Efron 1979), or of val if there is no test. The glimpse model learns
from class labels only (recipe ``image-folder``); the plain backbone takes the whole image at full size (recipe
``whole-image``).

Command: ``python benchmarks/whole_image.py --data FOLDER --backbone NAME [--backbone-weights FILE] [--seeds 3]``;
continues where it stopped; writes ``benchmarks/results/whole-image-FOLDER.json``, and a record of each run in
``benchmarks/results/whole-image-FOLDER/``; runs with a record are not trained again
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glimpsenet.bench.localization import change, summarize
from glimpsenet.config import Config
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.files import write_json
from glimpsenet.intervals import bootstrap_interval
from glimpsenet.provenance import common_machine, typed_command
from glimpsenet.recipes import RECIPES
from glimpsenet.runs import load_run
from glimpsenet.training.series import evaluate_held_out, train_series

GLIMPSES, WHOLE = "glimpses", "whole-image"
RECIPE_OF = {GLIMPSES: "image-folder", WHOLE: "whole-image"}
RESULTS = Path("benchmarks/results")


def experiments(chosen: argparse.Namespace) -> dict[str, list[Config]]:
    """Both recipes with the same data, backbone and epochs."""
    configs: dict[str, list[Config]] = {}
    for name in chosen.only:
        config = RECIPES[RECIPE_OF[name]]().with_data(chosen.data)
        model: dict[str, Any] = {"backbone": chosen.backbone}
        if chosen.backbone_weights is not None:
            model |= {"pretrained": False, "backbone_weights": chosen.backbone_weights}
        config = change(config, model=model, workers=0, **({} if chosen.epochs is None else {"epochs": chosen.epochs}))
        configs[name] = [replace(config, seed=seed) for seed in chosen.seeds]
    return configs


def measure(folder: Path, device: str) -> dict[str, Any]:
    """A run under every policy, and whether each held-out photo is classified right, in order: 0 or 1."""
    run = load_run(folder)
    _, photos = open_data(run.config, run.classes, run.channels).held_out()
    answers = []
    with torch.inference_mode():
        for batch in create_loader(photos, InOrder(len(photos)), 64):
            logits = run.model(run.model.normalization(batch.images)).logits[:, -1]
            answers.append((logits.argmax(1) == batch.labels).int())
    return {**evaluate_held_out(folder, device), "right": torch.cat(answers).tolist()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=RECIPE_OF, default=list(RECIPE_OF), help="train these alone")
    parser.add_argument("--out", type=Path, default=Path("runs/whole-image"))
    chosen = parser.parse_args(arguments)
    records = RESULTS / f"whole-image-{chosen.data.name}"
    results = train_series(experiments(chosen), chosen.out, records=records, measure=measure)
    if len(results) < len(RECIPE_OF):
        return
    correct = {
        name: torch.tensor([record["evaluation"]["right"] for record in entries]).double().mean(0)
        for name, entries in results.items()
    }
    difference = (correct[GLIMPSES] - correct[WHOLE]).numpy()
    low, high = bootstrap_interval([difference], np.random.default_rng(0))
    costs = {name: statistics.fmean(e["summary"]["cost"]["flops"][-1] for e in results[name]) for name in results}
    values = {
        "command": typed_command(),
        "photos": len(difference),
        "split": results[GLIMPSES][0]["evaluation"]["split"],
        "seeds": list(chosen.seeds),
        "difference": {"mean": float(difference.mean()), "low": low, "high": high},
        "share_of_flops": costs[GLIMPSES] / costs[WHOLE],
        "flops": costs,
        **{name: summarize(entries) for name, entries in results.items()},
        "machine": common_machine([entry["summary"]["machine"] for entries in results.values() for entry in entries]),
    }
    write_json(RESULTS / f"whole-image-{chosen.data.name}.json", values)
    for name in results:
        print(f"{name}: {values[name]['accuracy']:.3f} {values[name]['accuracies']}")
    print(f"difference {difference.mean():+.3f} ({low:+.3f} to {high:+.3f}) at {values['share_of_flops']:.1%}")


if __name__ == "__main__":
    main()

"""Robustness of glimpse models against plain backbones trained the same way, on digit scenes or a folder of photos.

    glimpsenet bench robustness RUN --plain PLAIN

for one pair of runs per seed. Missing runs are trained first: recipe ``digits`` (or ``image-folder``) and
``whole-image``, with the same backbone, data, epochs and seed.

Command: ``python benchmarks/robustness.py [--data FOLDER --backbone NAME [--backbone-weights FILE]] [--seeds 0]
[-- FLAGS OF bench robustness]``; continues where it stopped; writes ``benchmarks/results/robustness-DATA-seed-N.json``
and .png
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from glimpsenet.cli import main as glimpsenet
from glimpsenet.config import Config
from glimpsenet.recipes import RECIPES
from glimpsenet.training.fit import fit

RESULTS = Path("benchmarks/results")


def pair(data: Path | None, backbone: str | None, weights: Path | None) -> tuple[Config, Config]:
    """What glimpses and what sees the whole image at full size; everything else is shared."""
    looks = RECIPES["digits"]() if data is None else RECIPES["image-folder"]().with_data(data)
    chosen: dict[str, Any] = {} if backbone is None else {"backbone": backbone}
    if weights is not None:
        chosen |= {"pretrained": False, "backbone_weights": weights}
    looks = replace(looks, model=replace(looks.model, **chosen))
    recipe = RECIPES["whole-image"]().model
    size = looks.model.image_size
    plain = replace(
        recipe,
        backbone=looks.model.backbone,
        backbone_weights=looks.model.backbone_weights,
        pretrained=looks.model.pretrained,
        image_size=size,
        glimpse_size=size,
    )
    training = RECIPES["whole-image"]().training
    schedule = {
        name: getattr(looks.training, name)
        for name in ("epochs", "max_steps", "batch_size", "optimizer", "learning_rate", "weight_decay", "precision")
    }
    return looks, replace(looks, model=plain, training=replace(training, **schedule))


def trained(config: Config, out: Path) -> Path:
    """The run folder; trained, or trained on, if need be."""
    if not (out / "summary.json").exists():
        fit(config, out, resume=True)
    return out


def main() -> None:
    """See the module."""
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--backbone")
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/robustness"))
    chosen = parser.parse_args(own)
    name = "digits" if chosen.data is None else chosen.data.name
    for seed in chosen.seeds:
        configs = pair(chosen.data, chosen.backbone, chosen.backbone_weights)
        looks, plain = (replace(config, seed=seed) for config in configs)
        folder = chosen.runs / name / f"seed-{seed}"
        runs = trained(looks, folder / "glimpses"), trained(plain, folder / "whole-image")
        out = RESULTS / f"robustness-{name}-seed-{seed}.json"
        glimpsenet(["bench", "robustness", str(runs[0]), "--plain", str(runs[1]), "--out", str(out), *flags])


if __name__ == "__main__":
    main()

"""Several experiments with several seeds each, trained, evaluated under every policy, safe to interrupt and go on with.

OUT/NAME/seed-N/    a run folder, with evaluation.json beside its summary.json
"""

import csv
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glimpsenet import runs
from glimpsenet.config import Config, to_dict
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.devices import choose_device
from glimpsenet.errors import UserError
from glimpsenet.evaluation.accuracy import evaluate_all
from glimpsenet.files import write_json
from glimpsenet.training.fit import fit

EVALUATION = "evaluation.json"


def train_series(
    experiments: Mapping[str, Sequence[Config]], out: Path, *, device: str = "auto", tell: Callable[[str], None] = print
) -> dict[str, list[Path]]:
    """Train and evaluate what is not yet done.

    Args:
        experiments: name -> configurations, one a seed.
        out: folder of the runs.
        device: see :func:`glimpsenet.devices.choose_device`.
        tell: is told what is under way.

    Returns:
        Name -> run folders.

    Raises:
        UserError: if the folder holds runs of another setting, or broken ones, or the data are unusable.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out names a folder")
    folders: dict[str, list[Path]] = {}
    for name, configs in experiments.items():
        for config in configs:
            folder = out / name / f"seed-{config.seed}"
            folders.setdefault(name, []).append(folder)
            if (folder / EVALUATION).exists():
                _check_same(folder, config)
                tell(f"{name}, seed {config.seed}: done before")
                continue
            tell(f"{name}, seed {config.seed}")
            fit(config, folder, resume=True, device=device)
            write_json(folder / EVALUATION, _evaluate(folder, device))
    return folders


def _check_same(folder: Path, config: Config) -> None:
    if to_dict(runs.read_description(folder).config) != to_dict(config):
        raise UserError(f"{folder} was trained in another setting; --out DIR starts elsewhere")


def _evaluate(folder: Path, device: str) -> dict[str, Any]:
    run = runs.load_run(folder, choose_device(device))
    splits = open_data(run.config, run.classes, run.channels)
    return evaluate_all(
        run.model,
        create_loader(splits.val, InOrder(len(splits.val)), 64),
        has_boxes=splits.has_boxes,
        scale_range=run.config.model.scale_range,
        image_size=run.config.model.image_size,
        classes=run.classes,
    )


def read_results(folders: Mapping[str, Sequence[Path]]) -> dict[str, list[dict[str, Any]]]:
    """Name -> per seed: summary, evaluation.

    Raises:
        UserError: naming a file that is missing or damaged.
    """
    results: dict[str, list[dict[str, Any]]] = {}
    for row, places in folders.items():
        for folder in places:
            entry = {}
            for name in (runs.SUMMARY, EVALUATION):
                try:
                    entry[Path(name).stem] = json.loads((folder / name).read_text())
                except (OSError, ValueError) as error:
                    raise UserError(
                        f"{folder / name} is damaged: {error}; remove {folder} to train it again"
                    ) from error
            results.setdefault(row, []).append(entry)
    return results


def read_curve(folder: Path) -> dict[int, float]:
    """Optimiser step -> validation accuracy of the last glimpse, of a run."""
    with open(folder / runs.METRICS, newline="") as stream:
        rows = list(csv.DictReader(stream))
    last = max(
        (name for name in rows[0] if name.startswith("val/accuracy_")), key=lambda name: int(name.split("_")[-1])
    )
    return {int(row["step"]): float(row[last]) for row in rows if row[last]}


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean over seeds, at the steps that all of them have."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {step: statistics.fmean(curve[step] for curve in curves) for step in steps}

"""Several experiments with several seeds each, trained, evaluated under every policy, safe to interrupt and repeat.

    OUT/NAME/seed-N/             a run folder
    RECORDS/NAME-seed-N.json     what a finished run found: small enough to commit, and enough for tables and figures

A run whose record is there is not trained again, wherever its folder went.
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
from glimpsenet.errors import DamagedError, OutputError, first_line
from glimpsenet.evaluation.accuracy import evaluate_all
from glimpsenet.files import write_json
from glimpsenet.provenance import portable
from glimpsenet.training.fit import fit
from glimpsenet.training.run_folder import FREE

RECORDS = "records"
Record = dict[str, Any]
"""``config``, ``summary``, ``evaluation`` (on test where there is one, else on val), ``curve`` (step -> accuracy on
val)."""
BULKY = ("confusion_matrix", "per_class", "skipped")
PLACES = ("data", "backbone_weights")
"""Settings that name a file or folder of this machine."""


def train_series(
    experiments: Mapping[str, Sequence[Config]],
    out: Path,
    *,
    records: Path | None = None,
    device: str = "auto",
    measure: Callable[[Path, str], dict[str, Any]] | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, list[Record]]:
    """Train and evaluate what has no record yet.

    Args:
        experiments: name -> configurations, one a seed.
        out: folder of the runs.
        records: folder of the records; OUT/records if None.
        device: see :func:`glimpsenet.devices.choose_device`.
        measure: (run folder, device) -> ``evaluation``; :func:`evaluate_held_out` if None.
        tell: is told what is under way.

    Returns:
        Name -> records, one a seed.

    Raises:
        UserError: if a record is of another setting, or damaged, or the data are unusable.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, not a folder")
    measure = measure or evaluate_held_out
    found: dict[str, list[Record]] = {}
    for name, configs in experiments.items():
        for config in configs:
            file = record_file(out / RECORDS if records is None else records, name, config.seed)
            record = read_record(file, config)
            tell(f"{name}, seed {config.seed}" + ("" if record is None else ": done before"))
            if record is None:
                folder = out / name / f"seed-{config.seed}"
                summary = fit(config, folder, resume=True, device=device)
                record = _without_bulk(
                    {
                        "config": _portable_places(to_dict(config)),
                        "summary": summary,
                        "evaluation": measure(folder, device),
                        "curve": _read_curve(folder),
                    }
                )
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, record)
                record = json.loads(file.read_text())
            found.setdefault(name, []).append(record)
    return found


def _portable_places(config: dict[str, Any]) -> dict[str, Any]:
    """Settings without the folders of one machine, for a file that is committed."""
    return {
        part: {
            name: portable(str(value)) if name in PLACES and value is not None else value
            for name, value in settings.items()
        }
        if isinstance(settings, dict)
        else settings
        for part, settings in config.items()
    }


def record_file(folder: Path, name: str, seed: int) -> Path:
    """Where the record of a run is."""
    return folder / f"{name}-seed-{seed}.json"


def read_record(file: Path, config: Config) -> Record | None:
    """The record of a run with these settings; None if there is none.

    Raises:
        UserError: if it is damaged, or of other settings.
    """
    if not file.exists():
        return None
    try:
        record = json.loads(file.read_text())
        before = record["config"]
        if not isinstance(record["evaluation"]["policies"], dict) or not isinstance(record["curve"], dict):
            raise ValueError("evaluation or curve are not what they should be")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{file} is damaged: {first_line(error)}; remove it to train that run again") from error
    if _what_matters(before) != _what_matters(json.loads(json.dumps(to_dict(config)))):
        raise DamagedError(f"{file} is of another setting; choose another folder, or remove it to train that run again")
    return record


def _what_matters(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that decide what is learned; where files lie on a machine does not."""
    return {
        part: {name: value for name, value in settings.items() if name not in (*FREE, *PLACES)}
        if isinstance(settings, dict)
        else settings
        for part, settings in config.items()
    }


def _without_bulk(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_bulk(entry) for name, entry in value.items() if name not in BULKY}
    return [_without_bulk(entry) for entry in value] if isinstance(value, list) else value


def evaluate_held_out(folder: Path, device: str) -> dict[str, Any]:
    """A run under every policy, on the split that chose nothing where there is one."""
    run = runs.load_run(folder, choose_device(device))
    split, images = open_data(run.config, run.classes, run.channels).held_out()
    result = evaluate_all(
        run.model,
        create_loader(images, InOrder(len(images)), 64),
        has_boxes=images.has_boxes,
        scale_range=run.config.model.scale_range,
        image_size=run.config.model.image_size,
        classes=run.classes,
    )
    return {"split": split, **result}


def _read_curve(folder: Path) -> dict[int, float]:
    """Optimiser step -> validation accuracy of the last glimpse, of a run."""
    with open(folder / runs.METRICS, newline="") as stream:
        rows = list(csv.DictReader(stream))
    last = max(
        (name for name in rows[0] if name.startswith("val/accuracy_")), key=lambda name: int(name.split("_")[-1])
    )
    return {int(row["step"]): float(row[last]) for row in rows if row[last]}


def curve_of(record: Record) -> dict[int, float]:
    """Optimiser step -> validation accuracy of the last glimpse; JSON has no numbers for keys."""
    return {int(step): value for step, value in record["curve"].items()}


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Mean over seeds, at the steps that all of them have."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {step: statistics.fmean(curve[step] for curve in curves) for step in steps}

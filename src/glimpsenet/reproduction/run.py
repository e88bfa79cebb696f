"""Train the rows and evaluate them under each policy; safe to interrupt and restart.

OUT/ROW/seed-N/               a run folder
RECORDS/ROW-seed-N.json       results of a finished run, which is not trained again
OUT/pretraining/              the small CNN trained on single digits, and its weights
OUT/report.json  OUT/report.md  OUT/report.html  OUT/*.png
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch

from glimpsenet import runs
from glimpsenet.errors import OutputError
from glimpsenet.files import write_aside
from glimpsenet.reproduction.rows import ROWS, Setting, check_rows, pretraining_config, row_config
from glimpsenet.training.fit import fit
from glimpsenet.training.series import RECORDS, Record, read_record, record_file, train_series

MOST_SEEDS = 100


def train_rows(
    rows: Sequence[str],
    out: Path,
    setting: Setting,
    *,
    seeds: int = 1,
    records: Path | None = None,
    device: str = "auto",
    tell: Callable[[str], None] = print,
) -> dict[str, list[Record]]:
    """Train and evaluate what is missing; returns row -> records, for all finished rows and seeds.

    Raises:
        UserError: if the folder contains rows with another setting or damaged ones, or the data are unusable.
    """
    check_rows(tuple(rows))
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, not a folder")
    records = out / RECORDS if records is None else records
    makes_weights = setting.on_digits and setting.backbone_weights is None
    if makes_weights:
        setting = replace(setting, backbone_weights=out / "pretraining" / "backbone.safetensors")
    experiments = {row: [row_config(row, setting, seed) for seed in range(seeds)] for row in rows}
    waiting = [
        row
        for row, configs in experiments.items()
        if any(read_record(record_file(records, row, c.seed), c) is None for c in configs)
    ]
    if makes_weights and any(row.startswith("pretrained") for row in waiting):
        _pretrain(out / "pretraining", setting, device, tell)
    train_series(experiments, out, records=records, device=device, tell=tell)
    return _finished(records, setting)


def _finished(records: Path, setting: Setting) -> dict[str, list[Record]]:
    """Records of each row's seeds 0, 1, ..., from this and earlier commands."""
    found: dict[str, list[Record]] = {}
    for row in ROWS:
        for seed in range(MOST_SEEDS):
            record = read_record(record_file(records, row, seed), row_config(row, setting, seed))
            if record is None:
                break
            found.setdefault(row, []).append(record)
    return found


def _pretrain(folder: Path, setting: Setting, device: str, tell: Callable[[str], None]) -> None:
    """Train the backbone on single digits, once, and save its weights."""
    weights = folder / "backbone.safetensors"
    if not weights.exists():
        tell("pretraining on single digits")
        fit(pretraining_config(setting), folder, resume=True, device=device)
        net = runs.load_run(folder).model.backbone.net
        with write_aside(weights) as aside:
            safetensors.torch.save_file({key: v.contiguous() for key, v in net.state_dict().items()}, aside)

"""Train the rows, evaluate them under every policy; safe to interrupt and start again.

OUT/ROW/seed-N/      a run folder, with evaluation.json beside its summary.json
OUT/pretraining/     the small CNN on single digits, and its weights
OUT/report.json  OUT/report.md  OUT/report.html  OUT/*.png
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch

from glimpsenet import runs
from glimpsenet.errors import UserError
from glimpsenet.files import write_aside
from glimpsenet.reproduction.rows import Setting, check_rows, pretraining_config, row_config
from glimpsenet.training.fit import fit
from glimpsenet.training.series import train_series


def train_rows(
    rows: Sequence[str],
    out: Path,
    setting: Setting,
    *,
    seeds: int = 1,
    device: str = "auto",
    tell: Callable[[str], None] = print,
) -> dict[str, list[Path]]:
    """Train and evaluate what is not yet done; returns row -> run folders, one a seed.

    Raises:
        UserError: if the folder holds rows of another setting, or broken ones, or the data are unusable.
    """
    check_rows(tuple(rows))
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out names a folder")
    if setting.on_digits and setting.backbone_weights is None and any(row.startswith("pretrained") for row in rows):
        setting = replace(setting, backbone_weights=_pretrain(out / "pretraining", setting, device, tell))
    experiments = {row: [row_config(row, setting, seed) for seed in range(seeds)] for row in rows}
    return train_series(experiments, out, device=device, tell=tell)


def _pretrain(folder: Path, setting: Setting, device: str, tell: Callable[[str], None]) -> Path:
    """Weights of the backbone trained on single digits; made once."""
    weights = folder / "backbone.safetensors"
    if not weights.exists():
        tell("pretraining on single digits")
        fit(pretraining_config(setting), folder, resume=True, device=device)
        net = runs.load_run(folder).model.backbone.net
        with write_aside(weights) as aside:
            safetensors.torch.save_file({key: v.contiguous() for key, v in net.state_dict().items()}, aside)
    return weights

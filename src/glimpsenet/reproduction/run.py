"""Train the rows, evaluate them under every policy, and write the report; safe to interrupt and start again.

OUT/ROW/seed-N/      a run folder, with evaluation.json beside its summary.json
OUT/pretraining/     the small CNN on single digits, and its weights
OUT/report.json  OUT/report.md  OUT/report.html  OUT/*.png
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch

from glimpsenet import runs
from glimpsenet.config import to_dict
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.devices import choose_device
from glimpsenet.errors import UserError
from glimpsenet.evaluation.accuracy import evaluate_all
from glimpsenet.files import write_aside, write_json
from glimpsenet.reproduction.rows import Setting, check_rows, pretraining_config, row_config
from glimpsenet.training.fit import fit

EVALUATION = "evaluation.json"


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
    folders: dict[str, list[Path]] = {}
    for row in rows:
        for seed in range(seeds):
            folder = out / row / f"seed-{seed}"
            folders.setdefault(row, []).append(folder)
            config = row_config(row, setting, seed)
            if _is_finished(folder):
                _check_same(folder, to_dict(config))
                tell(f"{row}, seed {seed}: done before")
                continue
            tell(f"{row}, seed {seed}")
            fit(config, folder, resume=True, device=device)
            write_json(folder / EVALUATION, _evaluate(folder, device))
    return folders


def _is_finished(folder: Path) -> bool:
    return (folder / EVALUATION).exists()


def _check_same(folder: Path, values: dict[str, Any]) -> None:
    if to_dict(runs.read_description(folder).config) != values:
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


def read_results(folders: dict[str, list[Path]]) -> dict[str, list[dict[str, Any]]]:
    """Row -> per seed: summary, evaluation.

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

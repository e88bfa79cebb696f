"""The rows of Table 1, adapted to digit scenes or to a folder of images.

On digits: 20 px glimpses of 80 px scenes (11 px for the report's scale factor 7) and the small CNN, whose last two
stages stand for layers 3 and 4; "pretrained" means this CNN, first trained on single digits. Two rows are not in the
report: the baseline with separate batch normalisation for first glimpse and windows (ours), and MGNet's plain
comparator, the same backbone and schedule on the whole image at full size.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig
from glimpsenet.errors import SettingError
from glimpsenet.kinds import at_least
from glimpsenet.recipes import (
    PAPER,
    baseline,
    baseline_whole_image,
    digits,
    image_folder,
    with_papers_localization,
)

OURS = "baseline-separate-norms"
WHOLE = "baseline-whole-image"
ROWS = (*PAPER, OURS, WHOLE)

DIGIT_STEPS = 800
"""Optimiser steps per row on digits: ten rows take under an hour on two cores."""
REPORTED = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 1e-4,
    "gradient_clip": None,
    "batch_size": 256,
    "scale_factor": 2.33,
    "precision": "float32",
}
"""Settings of the report, or of MGNet if unspecified there; shown next to those of scaled-down runs."""


@dataclass(frozen=True)
class Setting:
    """Data and length of the training of all rows."""

    data: Path | None = None
    """Image folder (train/CLASS, val/CLASS); digit scenes if None."""
    max_steps: int | None = None
    """Optimiser steps per row; if None, 800 on digits and 12 epochs on a folder."""
    image_size: int | None = None
    """Side of the images in pixels; if None, 80 on digits and 224 on a folder. Glimpses scale with it."""
    backbone: str | None = None
    """Name of a timm model; if None, the small CNN on digits and ResNet-18 on a folder."""
    backbone_weights: Path | None = None
    """Weights file for the pretrained rows; if None, trained first on digits, timm's download on a folder."""

    def __post_init__(self):
        at_least(1, max_steps=1 if self.max_steps is None else self.max_steps)

    @property
    def on_digits(self) -> bool:
        """Whether rows are trained on digit scenes."""
        return self.data is None


def check_rows(names: tuple[str, ...]) -> None:
    """Check that the rows exist.

    Raises:
        SettingError: names the first unknown one.
    """
    for name in names:
        if name not in ROWS:
            raise SettingError(f"unknown row '{name}'; available: {', '.join(ROWS)}")


def row_config(name: str, setting: Setting, seed: int) -> Config:
    """The configuration of a row for a setting; the report's values by default."""
    if name == OURS:
        paper = replace(baseline(), model=replace(baseline().model, batch_norm="separate"))
    else:
        paper = baseline_whole_image() if name == WHOLE else PAPER[name][0]()
    base = with_papers_localization(digits() if setting.on_digits else image_folder())
    size = setting.image_size or (base.model.image_size if setting.on_digits else paper.model.image_size)
    # The report's scale factors 2.33 and 7 become 4 and 7 on the small digit scenes.
    scale_factor = 7 if name.startswith("2d-spatial-loc-s7") else 4 if setting.on_digits else 2.33
    scale_factor = 1 if name == WHOLE else scale_factor
    backbone = setting.backbone or (base.model.backbone if setting.on_digits else paper.model.backbone)
    weights = setting.backbone_weights if paper.model.pretrained else None
    return Config(
        model=replace(
            paper.model,
            backbone=backbone,
            backbone_weights=weights,
            pretrained=paper.model.pretrained and weights is None and not setting.on_digits,
            image_size=size,
            glimpse_size=int(size // scale_factor),
        ),
        data=DigitsConfig() if setting.data is None else FolderConfig(data=setting.data),
        training=replace(
            base.training,
            auxiliary_weight=paper.training.auxiliary_weight,
            precision=paper.training.precision,
            max_steps=setting.max_steps or (DIGIT_STEPS if setting.on_digits else None),
        ),
        seed=seed,
    )


def pretraining_config(setting: Setting) -> Config:
    """The small CNN on single digits without clutter: one glimpse of the whole image."""
    config = with_papers_localization(digits())
    size = int((setting.image_size or config.model.image_size) // 4)
    return replace(
        config,
        model=replace(
            config.model,
            backbone=setting.backbone or config.model.backbone,
            num_glimpses=1,
            image_size=size,
            glimpse_size=size,
            batch_norm="shared",
        ),
        data=DigitsConfig(num_clutter=0, train_scenes=12_000, val_scenes=500),
        training=replace(config.training, max_steps=min(500, setting.max_steps or 500), precision="float32"),
    )

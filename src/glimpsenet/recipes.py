"""Named experiments: functions that return a configuration. ``glimpsenet train NAME`` runs one.

``digits``, ``digits-far``, ``image-folder`` and ``whole-image`` are for use; the others are the eight rows of the
report's Table 1 (Supeene & Wang): ImageNet100 validation accuracy after four glimpses of 96 of 224 pixels. All of them
are ``baseline`` with what the table changes.

Schedule and cost of the paper's rows, unless a row says otherwise: 400 epochs of about 129,000 images, batch 256. None
has been run here at full size. Estimated for one H100 with 16 processor cores: 9 hours, of which the graphics processor
computes for 1 or 2; reading and augmenting images takes the rest.
"""

import fnmatch
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from glimpsenet.config import Config
from glimpsenet.data.config import DigitsConfig, FolderConfig, ImageNetAugmentation
from glimpsenet.errors import SettingError, did_you_mean
from glimpsenet.models.config import (
    AttentionConfig,
    MipmapConfig,
    ModelConfig,
    NoClueConfig,
    NoFusionConfig,
    PositionalClueConfig,
)
from glimpsenet.policies.config import LinearConfig, SpatiotemporalConfig, TokenConfig
from glimpsenet.training.config import PathwiseConfig, TrainingConfig, ValueMapConfig


def digits() -> Config:
    """Digit scenes; 80 px, four 20 px glimpses, 1,125 steps of 64 fresh scenes.

    A token policy whose scores predict how well each window can be read (the value map); all windows are random for the
    first fifth of the schedule, one in ten later. Separate batch normalisation for first glimpse and windows,
    anti-aliased glimpses, uniform initial attention. ``docs/localization.md`` measures each part.
    """
    return Config(
        model=ModelConfig(
            backbone="glimpse_cnn",
            image_size=80,
            glimpse_size=20,
            batch_norm="separate",
            sampling=MipmapConfig(),
            fusion=AttentionConfig(uniform=True),
            policy=TokenConfig(layer=1, scales=(0.3,), subcells=2),
        ),
        data=DigitsConfig(),
        training=TrainingConfig(
            epochs=6,
            batch_size=64,
            optimizer="adamw",
            learning_rate=3e-3,
            weight_decay=0.01,
            gradient_clip=1.0,
            random_until=0.2,
            diversity=0.1,
            objective=ValueMapConfig(),
        ),
    )


def digits_far() -> Config:
    """The same digits on a canvas of 120 px with 16 clutter patches: under 3 px wide in the first glimpse.

    The policy chooses between wide windows, to find, and narrow ones, to read.
    """
    config = digits()
    return replace(
        config,
        model=replace(
            config.model,
            image_size=120,
            scale_range=(0.15, 0.5),
            policy=TokenConfig(layer=1, scales=(0.2, 0.4), subcells=2),
        ),
        data=DigitsConfig(num_clutter=16),
    )


def digits_pathwise() -> Config:
    """``digits`` with MGNet's localization: what the token policy and its value map are compared with."""
    return with_papers_localization(digits())


def digits_whole_image() -> Config:
    """``digits`` without glimpses: the plain backbone on the whole scene at full size, to compare with."""
    return _without_glimpses(digits_pathwise())


def image_folder() -> Config:
    """Your images: train/CLASS/*.jpg and val/CLASS/*.jpg under --data, any timm backbone.

    320 px images, four 96 px glimpses, a pretrained backbone fine-tuned for 12 epochs; localization as in ``digits``.
    """
    return Config(
        model=ModelConfig(
            backbone="resnet18",
            pretrained=True,
            image_size=320,
            glimpse_size=96,
            batch_norm="separate",
            glimpse_ensemble=True,
            sampling=MipmapConfig(),
            fusion=AttentionConfig(uniform=True),
            policy=TokenConfig(layer=-2, scales=(0.2, 0.35), subcells=2),
        ),
        data=FolderConfig(),
        training=TrainingConfig(
            epochs=12,
            batch_size=32,
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.05,
            gradient_clip=1.0,
            workers=2,
            random_until=0.2,
            diversity=0.2,
            objective=ValueMapConfig(),
        ),
    )


def whole_image() -> Config:
    """``image-folder`` without glimpses: the plain backbone on the whole image at full size, to compare with."""
    return _without_glimpses(with_papers_localization(image_folder()))


def _without_glimpses(config: Config) -> Config:
    """The plain backbone: one glimpse, the whole image at full size."""
    size = config.model.image_size
    return _vary(config, num_glimpses=1, glimpse_size=size, clue=NoClueConfig(), fusion=NoFusionConfig())


def with_papers_localization(config: Config) -> Config:
    """``config`` with MGNet's localization network, learned by the classification loss through the sampling."""
    return replace(
        config,
        model=replace(config.model, glimpse_ensemble=False, fusion=AttentionConfig(), policy=LinearConfig()),
        training=replace(config.training, random_until=0.0, diversity=0.0, objective=PathwiseConfig()),
    )


def baseline() -> Config:
    """MGNet as the report trains it; 83.99% in the report.

    ResNet-18 from scratch, T = 4, s in [0.2, 0.5], gradient factor 0.02, alpha 0.6, SGD under one cycle.

    Data: ImageNet100, made by `glimpsenet data imagenet100 IMAGENET imagenet100`.
    Command: `glimpsenet train baseline --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return Config(
        model=ModelConfig(),
        data=FolderConfig(data=Path("imagenet100"), augmentation=ImageNetAugmentation()),
        # MGNet trains in float32; so does every row.
        training=TrainingConfig(workers=8, precision="float32"),
    )


def baseline_whole_image() -> Config:
    """MGNet's plain comparator: the baseline's backbone and schedule on the whole image at full size.

    Command: `glimpsenet train baseline-whole-image --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _without_glimpses(baseline())


def _vary(config: Config, auxiliary_weight: float | None = None, **model: Any) -> Config:
    """``config`` with other settings of the model, and another alpha."""
    config = replace(config, model=replace(config.model, **model))
    if auxiliary_weight is None:
        return config
    return replace(config, training=replace(config.training, auxiliary_weight=auxiliary_weight))


def two_d_spatial_clue() -> Config:
    """The baseline with 2-D positional encoding as spatial clue; 84.16% in the report.

    Command: `glimpsenet train 2d-spatial-clue --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _vary(baseline(), clue=PositionalClueConfig())


def two_d_spatial_loc() -> Config:
    """The baseline with the spatiotemporal localization network on layer 4 (3 x 3 tokens); 83.81% in the report.

    Command: `glimpsenet train 2d-spatial-loc --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _vary(baseline(), policy=SpatiotemporalConfig(layer=-1))


def two_d_spatial_loc_s7() -> Config:
    """2d-spatial-loc with scale factor 7: 32 px glimpses, layer 3 (2 x 2 tokens), s in [1/7, 0.99]; 62.00%.

    Glimpses cost a ninth of the baseline's; reading images decides how long it takes.
    Command: `glimpsenet train 2d-spatial-loc-s7 --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    policy = SpatiotemporalConfig(layer=-2)
    return _vary(two_d_spatial_loc(), policy=policy, glimpse_size=224 // 7, scale_range=(1 / 7, 0.99))


def two_d_spatial_loc_s7_no_aux() -> Config:
    """2d-spatial-loc-s7 without auxiliary loss (alpha = 0); 67.45%, all glimpses on one central window.

    Command: `glimpsenet train 2d-spatial-loc-s7-no-aux --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _vary(two_d_spatial_loc_s7(), auxiliary_weight=0.0)


def multihead_attention() -> Config:
    """Four heads in the fusion; 83.72% in the report.

    Four do not divide MGNet's width of 515, so this row has the 2-D spatial clue (512) too.
    Command: `glimpsenet train multihead-attention --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _vary(two_d_spatial_clue(), fusion=AttentionConfig(num_heads=4))


def pretrained() -> Config:
    """2d-spatial-clue on a backbone pretrained on ImageNet-1k (torchvision's weights, as the report); 85.14%.

    Command: `glimpsenet train pretrained --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _vary(two_d_spatial_clue(), backbone="resnet18.tv_in1k", pretrained=True)


def pretrained_frozen() -> Config:
    """pretrained, with all of the backbone but layer 4 frozen, statistics too; 84.75% with 20% fewer parameters.

    Command: `glimpsenet train pretrained-frozen --data imagenet100`
    Expect 9 hours on one H100 with 16 processor cores (estimated; see the module).
    """
    return _vary(pretrained(), freeze_backbone=True)


PAPER: dict[str, tuple[Callable[[], Config], float]] = {
    "baseline": (baseline, 83.99),
    "2d-spatial-clue": (two_d_spatial_clue, 84.16),
    "2d-spatial-loc": (two_d_spatial_loc, 83.81),
    "2d-spatial-loc-s7": (two_d_spatial_loc_s7, 62.00),
    "2d-spatial-loc-s7-no-aux": (two_d_spatial_loc_s7_no_aux, 67.45),
    "multihead-attention": (multihead_attention, 83.72),
    "pretrained": (pretrained, 85.14),
    "pretrained-frozen": (pretrained_frozen, 84.75),
}
"""The rows of Table 1, with the report's accuracy in percent."""

RECIPES: dict[str, Callable[[], Config]] = {
    "digits": digits,
    "digits-far": digits_far,
    "digits-pathwise": digits_pathwise,
    "digits-whole-image": digits_whole_image,
    "image-folder": image_folder,
    "whole-image": whole_image,
    **{name: recipe for name, (recipe, _) in PAPER.items()},
    "baseline-whole-image": baseline_whole_image,
}


def list_recipes(filter: str = "") -> list[str]:
    """Names of recipes, as ``timm.list_models`` lists models; ``glimpsenet train --help`` says what they are.

    Args:
        filter: a pattern with wildcards, ``digits*`` or ``*-loc*``; all if empty.

    Example:
        >>> glimpsenet.list_recipes("pretrained*")
        ['pretrained', 'pretrained-frozen']
    """
    return fnmatch.filter(RECIPES, filter or "*")


def recipe(name: str) -> Config:
    """The configuration of a recipe.

    Change it with ``dataclasses.replace``, train it with :func:`~glimpsenet.training.fit.fit`.

    Raises:
        SettingError: for an unknown name, with the nearest.

    Example:
        >>> glimpsenet.recipe("digits").model.num_glimpses
        4
    """
    if name not in RECIPES:
        raise SettingError(f"no recipe '{name}'; {did_you_mean(name, RECIPES)}")
    return RECIPES[name]()

"""Builds a model from its settings; each part's settings build that part."""

from typing import Any

from glimpsenet.errors import UserError
from glimpsenet.models.backbone import (
    Backbone,
    backbone_normalization,
    create_backbone_net,
    load_backbone_weights,
)
from glimpsenet.models.config import ModelConfig, replace_settings
from glimpsenet.models.glimpsenet import GlimpseNet


def create_model(
    backbone: str = "resnet18",
    *,
    num_classes: int,
    in_channels: int = 3,
    like: ModelConfig | None = None,
    **settings: Any,
) -> GlimpseNet:
    """Create a recurrent glimpse classifier; untrained, except for a pretrained backbone.

    Args:
        backbone: name of a timm model, or ``glimpse_cnn``.
        num_classes: number of classes.
        in_channels: channels of the images, 3 for colour.
        like: settings to start from, such as a recipe's: ``glimpsenet.recipe("image-folder").model`` has a learned
            policy. MGNet's if None.
        **settings: any other field of :class:`glimpsenet.models.config.ModelConfig`: ``num_glimpses``, ``image_size``,
            ``glimpse_size``, ``scale_range``, ``pretrained``..., and ``sampling``, ``clue``, ``fusion`` and ``policy``,
            each given as a kind's settings, or as its name for the defaults.

    Raises:
        UserError: for an unknown backbone or setting (gives the nearest name), or settings that contradict each other.

    Example:
        >>> model = glimpsenet.create_model("resnet18", num_classes=100, num_glimpses=4)
        >>> images = torch.rand(2, 3, 224, 224)  # 0..1
        >>> out = model(model.normalization(images))
        >>> out.logits.shape, out.windows.shape
        (torch.Size([2, 4, 100]), torch.Size([2, 4, 3]))
    """
    config = replace_settings(like or ModelConfig(), backbone=backbone, **settings)
    return build_model(config, num_classes=num_classes, in_channels=in_channels)


def build_model(
    config: ModelConfig, *, num_classes: int, in_channels: int = 3, initial_weights: bool = True
) -> GlimpseNet:
    """Build the model that ``config`` describes; use ``initial_weights=False`` before loading a checkpoint.

    Raises:
        UserError: if the settings contradict each other.
    """
    net = create_backbone_net(
        config.backbone,
        in_channels=in_channels,
        image_size=config.glimpse_size,
        pretrained=initial_weights and config.pretrained and config.backbone_weights is None,
    )
    if initial_weights and config.backbone_weights is not None:
        load_backbone_weights(net, config.backbone_weights, config.backbone)
    try:
        backbone = Backbone(
            net,
            separate_norms=config.batch_norm == "separate",
            layers=config.policy.layers,
            frozen=config.freeze_backbone,
        )
        clue = config.clue.build(backbone.channels, config.image_size)
        fusion = config.fusion.build(clue.width)
        policy = config.policy.build(
            width=clue.width,
            map_channels=backbone.map_channels,
            image_size=config.image_size,
            scale_range=config.scale_range,
        )
    except ValueError as error:
        raise UserError(f"backbone '{config.backbone}': {error}") from error
    return GlimpseNet(
        generator=config.sampling.build(config.glimpse_size),
        backbone=backbone,
        clue=clue,
        fusion=fusion,
        policy=policy,
        num_classes=num_classes,
        num_glimpses=config.num_glimpses,
        normalization=backbone_normalization(net, in_channels),
        auxiliary=config.auxiliary_classifier,
        glimpse_ensemble=config.glimpse_ensemble,
    )

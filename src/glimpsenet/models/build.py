"""From settings to a model: the only place where names of parts become objects."""

from typing import Any

from torch import nn

from glimpsenet.config import ModelConfig, replace_settings
from glimpsenet.errors import UserError
from glimpsenet.models.backbone import (
    Backbone,
    backbone_normalization,
    create_backbone_net,
    feature_info,
    load_backbone_weights,
)
from glimpsenet.models.encoding import AffineClue, NoClue, PositionalClue, SpatialClue
from glimpsenet.models.fusion import AttentionFusion, MeanFusion, NoFusion
from glimpsenet.models.glimpse import BilinearGlimpses, GlimpseGenerator, LinearizedGlimpses, MipmapGlimpses
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.models.localization import GaussianPolicy, LocalizationNetwork, SpatiotemporalLocalization
from glimpsenet.models.policies import Policy
from glimpsenet.models.token_policy import TokenPolicy


def create_model(
    backbone: str = "resnet18",
    *,
    num_classes: int,
    in_channels: int = 3,
    like: ModelConfig | None = None,
    **settings: Any,
) -> GlimpseNet:
    """A new recurrent glimpse classifier; untrained, but for a pretrained backbone.

    Args:
        backbone: any timm model by name, or ``glimpse_cnn``.
        num_classes: number of classes.
        in_channels: channels of the images, 3 for colour.
        like: settings to begin with, those of a recipe: ``glimpsenet.recipe("image-folder").model`` is the model that
            learns where to look. MGNet's if None.
        **settings: any other field of :class:`glimpsenet.config.ModelConfig`: ``num_glimpses``, ``image_size``,
            ``glimpse_size``, ``scale_range``, ``sampling``, ``spatial_clue``, ``num_heads``, ``pretrained``...

    Raises:
        UserError: for an unknown backbone or setting (with the nearest name) or settings that do not fit together.

    Example:
        >>> model = create_model("resnet18", num_classes=100, num_glimpses=4)
        >>> out = model(model.normalization(images))
    """
    config = replace_settings(like or ModelConfig(), backbone=backbone, **settings)
    return build_model(config, num_classes=num_classes, in_channels=in_channels)


def build_model(
    config: ModelConfig, *, num_classes: int, in_channels: int = 3, initial_weights: bool = True
) -> GlimpseNet:
    """The model that ``config`` describes; ``initial_weights=False`` where a checkpoint is loaded over it anyway.

    Raises:
        UserError: if the settings do not fit together.
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
            layers=[] if config.localization == "linear" else [config.localization_layer],
            frozen=config.freeze_backbone,
        )
        clue = _create_clue(config, backbone.channels)
        fusion = _create_fusion(config, clue.width)
        policy = _create_policy(config, net, clue.width)
    except ValueError as error:
        raise UserError(f"backbone '{config.backbone}': {error}") from error
    return GlimpseNet(
        generator=_create_generator(config),
        backbone=backbone,
        clue=clue,
        fusion=fusion,
        policy=policy,
        num_classes=num_classes,
        num_glimpses=config.num_glimpses,
        normalization=backbone_normalization(net, in_channels),
        auxiliary=config.auxiliary_classifier,
        windows_vote=config.windows_vote,
    )


def _create_generator(config: ModelConfig) -> GlimpseGenerator:
    if config.sampling == "mipmap":
        return MipmapGlimpses(config.glimpse_size)
    if config.sampling == "linearized":
        return LinearizedGlimpses(config.glimpse_size)
    return BilinearGlimpses(config.glimpse_size, config.align_corners)


def _create_policy(config: ModelConfig, net: nn.Module, width: int) -> Policy:
    if config.localization == "linear":
        network = LocalizationNetwork(width, config.scale_range, config.gradient_factor)
        return GaussianPolicy(network, config.localization_noise) if config.localization_noise else network
    channels = feature_info(net, config.localization_layer)["num_chs"]
    if config.localization == "tokens":
        return TokenPolicy(
            channels,
            width,
            config.token_scales,
            subcells=config.token_subcells,
            max_overlap=config.max_overlap,
            stop_gradient=config.stop_gradient,
        )
    network = SpatiotemporalLocalization(channels, config.image_size, config.scale_range, config.gradient_factor)
    return GaussianPolicy(network, config.localization_noise) if config.localization_noise else network


def _create_fusion(config: ModelConfig, width: int) -> AttentionFusion | MeanFusion | NoFusion:
    if config.fusion == "attention":
        return AttentionFusion(width, config.num_heads, config.even_attention)
    return MeanFusion() if config.fusion == "mean" else NoFusion()


def _create_clue(config: ModelConfig, channels: int) -> SpatialClue:
    if config.spatial_clue == "affine":
        return AffineClue(channels)
    if config.spatial_clue == "positional":
        return PositionalClue(channels, config.image_size, config.clue_with_scale)
    return NoClue(channels)

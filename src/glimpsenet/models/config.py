"""Settings of the model and of each kind of sampling, spatial clue and fusion; imports no torch."""

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from glimpsenet.errors import SettingError, did_you_mean
from glimpsenet.kinds import Kind, Kinds, require, settings_of
from glimpsenet.policies.config import LinearConfig, PolicyConfig

if TYPE_CHECKING:
    from glimpsenet.models.clues import SpatialClue
    from glimpsenet.models.fusion import AttentionFusion, MeanFusion, NoFusion
    from glimpsenet.models.sampling import GlimpseGenerator

MOST_GLIMPSES, LARGEST_IMAGE = 1000, 16_384
"""Safety limits against untrusted configs."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Kind):
    """How a window becomes a glimpse."""

    kinds: ClassVar["Kinds[SamplingConfig]"] = Kinds(
        "sampling",
        {
            "bilinear": "glimpsenet.models.config:BilinearConfig",
            "mipmap": "glimpsenet.models.config:MipmapConfig",
            "linearized": "glimpsenet.models.config:LinearizedConfig",
        },
    )

    @abstractmethod
    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """Build the generator of ``glimpse_size`` x ``glimpse_size`` glimpses."""


@dataclass(frozen=True, kw_only=True)
class BilinearConfig(SamplingConfig):
    """Bilinear sampling, no anti-aliasing."""

    kind = "bilinear"
    align_corners: bool = True
    """Sample from corner pixel to corner pixel, as MGNet does, instead of at the centres of equal cells."""

    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """See :class:`SamplingConfig`."""
        from glimpsenet.models.sampling import BilinearGlimpses

        return BilinearGlimpses(glimpse_size, self.align_corners)


@dataclass(frozen=True, kw_only=True)
class MipmapConfig(SamplingConfig):
    """Anti-aliased sampling from an image pyramid."""

    kind = "mipmap"

    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """See :class:`SamplingConfig`."""
        from glimpsenet.models.sampling import MipmapGlimpses

        return MipmapGlimpses(glimpse_size)


@dataclass(frozen=True, kw_only=True)
class LinearizedConfig(SamplingConfig):
    """Bilinear sampling with a gradient of longer range."""

    kind = "linearized"

    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """See :class:`SamplingConfig`."""
        from glimpsenet.models.sampling import LinearizedGlimpses

        return LinearizedGlimpses(glimpse_size)


@dataclass(frozen=True, kw_only=True)
class ClueConfig(Kind):
    """How features encode where they were seen."""

    kinds: ClassVar["Kinds[ClueConfig]"] = Kinds(
        "clue",
        {
            "affine": "glimpsenet.models.config:AffineClueConfig",
            "positional": "glimpsenet.models.config:PositionalClueConfig",
            "none": "glimpsenet.models.config:NoClueConfig",
        },
    )

    @abstractmethod
    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """Build the clue for features with ``channels`` channels and ``image_size`` x ``image_size`` images."""


@dataclass(frozen=True, kw_only=True)
class AffineClueConfig(ClueConfig):
    """[f; s, tx, ty], as in MGNet."""

    kind = "affine"

    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """See :class:`ClueConfig`."""
        from glimpsenet.models.clues import AffineClue

        return AffineClue(channels)


@dataclass(frozen=True, kw_only=True)
class PositionalClueConfig(ClueConfig):
    """2-D positional encoding, as in the report."""

    kind = "positional"
    with_scale: bool = False
    """Add the window's size to the encoding."""

    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """See :class:`ClueConfig`."""
        from glimpsenet.models.clues import PositionalClue

        return PositionalClue(channels, image_size, self.with_scale)


@dataclass(frozen=True, kw_only=True)
class NoClueConfig(ClueConfig):
    """Features only."""

    kind = "none"

    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """See :class:`ClueConfig`."""
        from glimpsenet.models.clues import NoClue

        return NoClue(channels)


@dataclass(frozen=True, kw_only=True)
class FusionConfig(Kind):
    """How glimpses are combined."""

    kinds: ClassVar["Kinds[FusionConfig]"] = Kinds(
        "fusion",
        {
            "attention": "glimpsenet.models.config:AttentionConfig",
            "mean": "glimpsenet.models.config:MeanConfig",
            "none": "glimpsenet.models.config:NoFusionConfig",
        },
    )

    @abstractmethod
    def build(self, width: int) -> "AttentionFusion | MeanFusion | NoFusion":
        """Build the fusion for tokens with ``width`` channels."""


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(FusionConfig):
    """Attention over all glimpses so far, as in MGNet and the report."""

    kind = "attention"
    num_heads: int = 1
    """Attention heads, 1 or more; must divide the width."""
    uniform: bool = False
    """Start training with equal attention to all glimpses, not with the random preferences of Kaiming weights."""

    def __post_init__(self) -> None:
        require(self.num_heads >= 1, f"num_heads must be 1 or more, got {self.num_heads}")

    def build(self, width: int) -> "AttentionFusion":
        """See :class:`FusionConfig`."""
        from glimpsenet.models.fusion import AttentionFusion

        return AttentionFusion(width, self.num_heads, self.uniform)


@dataclass(frozen=True, kw_only=True)
class MeanConfig(FusionConfig):
    """The mean of all glimpses so far."""

    kind = "mean"

    def build(self, width: int) -> "MeanFusion":
        """See :class:`FusionConfig`."""
        from glimpsenet.models.fusion import MeanFusion

        return MeanFusion()


@dataclass(frozen=True, kw_only=True)
class NoFusionConfig(FusionConfig):
    """No fusion: each answer uses one glimpse only."""

    kind = "none"

    def build(self, width: int) -> "NoFusion":
        """See :class:`FusionConfig`."""
        from glimpsenet.models.fusion import NoFusion

        return NoFusion()


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The recurrent classifier; the data set the number of classes and channels."""

    backbone: str = "resnet18"
    """Name of a timm model, or glimpse_cnn, a small network for small glimpses."""
    backbone_weights: Path | None = None
    """File with initial backbone weights (safetensors or torch.save), loaded strictly."""
    pretrained: bool = False
    """Start the backbone from timm's weights (downloaded) unless backbone_weights is set."""
    freeze_backbone: bool = False
    """Train only the backbone's last stage; normalisation statistics of the other stages are frozen too."""
    batch_norm: Literal["shared", "separate"] = "shared"
    """Batch normalisation: shared by the first glimpse and windows (MGNet), or separate for each."""
    num_glimpses: int = 4
    """T, 1 to 1,000, including the first glimpse."""
    image_size: int = 224
    """Side of the square image in pixels, up to 16,384."""
    glimpse_size: int = 96
    """Side of a glimpse in pixels, at most image_size."""
    scale_range: tuple[float, float] = (0.2, 0.5)
    """Smallest and largest scale s of a window, its side as a share of the image's side; 1 is the whole image."""
    auxiliary_classifier: bool = True
    """Add a classifier on each window's features alone, for the auxiliary loss."""
    glimpse_ensemble: bool = False
    """After training, the auxiliary classifier's answer for each window counts as much as the fusion's answer. For
    few training images, where the fusion memorises scenes."""
    sampling: SamplingConfig = BilinearConfig()
    clue: ClueConfig = AffineClueConfig()
    fusion: FusionConfig = AttentionConfig()
    policy: PolicyConfig = LinearConfig()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        smallest, largest = self.scale_range
        require(
            1 <= self.num_glimpses <= MOST_GLIMPSES,
            f"num_glimpses must be in 1..{MOST_GLIMPSES}, got {self.num_glimpses}",
        )
        require(self.glimpse_size >= 1, f"glimpse_size must be 1 or more, got {self.glimpse_size}")
        require(
            self.image_size <= LARGEST_IMAGE, f"image_size must not be above {LARGEST_IMAGE}, got {self.image_size}"
        )
        require(
            self.glimpse_size <= self.image_size,
            f"image_size {self.image_size} is smaller than glimpse_size {self.glimpse_size}",
        )
        require(
            0 < smallest <= largest <= 1,
            f"scale_range must satisfy 0 < smallest <= largest <= 1, got {smallest} {largest}",
        )
        require(
            self.auxiliary_classifier or not self.glimpse_ensemble,
            "glimpse_ensemble needs the auxiliary classifier: set auxiliary_classifier too",
        )


PARTS: dict[str, type[Kind]] = {
    "sampling": SamplingConfig,
    "clue": ClueConfig,
    "fusion": FusionConfig,
    "policy": PolicyConfig,
}
"""Settings of the model that are kinds, with their families."""


def replace_settings(config: ModelConfig, **settings: Any) -> ModelConfig:
    """``config`` with some settings changed; a kind given by name gets its default settings.

    Raises:
        SettingError: for an unknown setting; names the nearest one or the kind that has it.
    """
    for name, value in settings.items():
        if name not in settings_of(ModelConfig):
            raise SettingError(f"the model has no setting '{name}'; {_where_else(name)}")
        if name in PARTS and isinstance(value, str):
            settings[name] = PARTS[name].kinds[value]()  # pyright: ignore[reportAttributeAccessIssue]
    return dataclasses.replace(config, **settings)


def _where_else(name: str) -> str:
    for part, family in PARTS.items():
        if kinds := family.kinds.having(name):  # pyright: ignore[reportAttributeAccessIssue]
            return f"{part} '{kinds[0]}' has one: {part}={family.kinds[kinds[0]].__name__}({name}=...)"  # pyright: ignore
    return did_you_mean(name, settings_of(ModelConfig))


@dataclass(frozen=True, kw_only=True)
class MGNetConfig:
    """MGNet's architecture. Use the settings that the checkpoint was trained with; defaults are the paper's."""

    backbone: str = "resnet18"
    """ResNet that the checkpoint was trained with."""
    num_glimpses: int = 4
    """T, including the first glimpse."""
    scale_factor: float = 2.33
    """Image size over glimpse size: glimpses have floor(image_size / scale_factor) pixels a side."""
    scale_range: tuple[float, float] = (0.2, 0.5)
    """Smallest and largest scale s of a window."""
    image_size: int = 224
    """Side of the square image in pixels."""

    def model(self) -> ModelConfig:
        """The equivalent :class:`ModelConfig`.

        Raises:
            SettingError: if settings contradict each other.
        """
        require(self.scale_factor >= 1, f"scale_factor must be 1 or more, got {self.scale_factor}")
        return ModelConfig(
            backbone=self.backbone,
            num_glimpses=self.num_glimpses,
            image_size=self.image_size,
            glimpse_size=int(self.image_size // self.scale_factor),
            scale_range=self.scale_range,
            batch_norm="shared",
            sampling=BilinearConfig(align_corners=True),
            clue=AffineClueConfig(),
            fusion=AttentionConfig(),
            policy=LinearConfig(),
        )

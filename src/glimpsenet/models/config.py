"""Settings of the model and of each kind of sampling, spatial clue and fusion; free of torch."""

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
        """The generator of glimpses of ``glimpse_size`` pixels a side."""


@dataclass(frozen=True, kw_only=True)
class BilinearConfig(SamplingConfig):
    """Bilinear sampling, no anti-aliasing."""

    kind = "bilinear"
    align_corners: bool = True
    """Sample from corner pixel to corner pixel, as MGNet does, not the centres of equal cells."""

    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """See :class:`SamplingConfig`."""
        from glimpsenet.models.sampling import BilinearGlimpses

        return BilinearGlimpses(glimpse_size, self.align_corners)


@dataclass(frozen=True, kw_only=True)
class MipmapConfig(SamplingConfig):
    """Anti-aliased sampling from a pyramid."""

    kind = "mipmap"

    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """See :class:`SamplingConfig`."""
        from glimpsenet.models.sampling import MipmapGlimpses

        return MipmapGlimpses(glimpse_size)


@dataclass(frozen=True, kw_only=True)
class LinearizedConfig(SamplingConfig):
    """Bilinear sampling with a gradient that looks further."""

    kind = "linearized"

    def build(self, glimpse_size: int) -> "GlimpseGenerator":
        """See :class:`SamplingConfig`."""
        from glimpsenet.models.sampling import LinearizedGlimpses

        return LinearizedGlimpses(glimpse_size)


@dataclass(frozen=True, kw_only=True)
class ClueConfig(Kind):
    """How features learn where they were seen."""

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
        """The clue for features of ``channels`` channels, of images of ``image_size`` pixels a side."""


@dataclass(frozen=True, kw_only=True)
class AffineClueConfig(ClueConfig):
    """[f; s, tx, ty], as MGNet has it."""

    kind = "affine"

    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """See :class:`ClueConfig`."""
        from glimpsenet.models.clues import AffineClue

        return AffineClue(channels)


@dataclass(frozen=True, kw_only=True)
class PositionalClueConfig(ClueConfig):
    """2-D positional encoding, as the report has it."""

    kind = "positional"
    with_scale: bool = False
    """Add the window's size to the encoding."""

    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """See :class:`ClueConfig`."""
        from glimpsenet.models.clues import PositionalClue

        return PositionalClue(channels, image_size, self.with_scale)


@dataclass(frozen=True, kw_only=True)
class NoClueConfig(ClueConfig):
    """Features alone."""

    kind = "none"

    def build(self, channels: int, image_size: int) -> "SpatialClue":
        """See :class:`ClueConfig`."""
        from glimpsenet.models.clues import NoClue

        return NoClue(channels)


@dataclass(frozen=True, kw_only=True)
class FusionConfig(Kind):
    """How glimpses are joined."""

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
        """The fusion of tokens of ``width`` channels."""


@dataclass(frozen=True, kw_only=True)
class AttentionConfig(FusionConfig):
    """Attention over all glimpses so far, as MGNet and the report have it."""

    kind = "attention"
    num_heads: int = 1
    """Heads, 1 or more; they must divide the width."""
    uniform: bool = False
    """Begin training with equal attention to all glimpses, not with the random preference of Kaiming weights."""

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
    """Each answer from its own glimpse."""

    kind = "none"

    def build(self, width: int) -> "NoFusion":
        """See :class:`FusionConfig`."""
        from glimpsenet.models.fusion import NoFusion

        return NoFusion()


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The recurrent classifier; number of classes and channels come from the data."""

    backbone: str = "resnet18"
    """Any timm model by name, or glimpse_cnn, a small network for small glimpses."""
    backbone_weights: Path | None = None
    """Weights file the backbone starts from (safetensors or torch.save), loaded strictly."""
    pretrained: bool = False
    """Start the backbone from timm's weights (downloaded), unless backbone_weights names a file."""
    freeze_backbone: bool = False
    """Train only the backbone's last stage; the statistics of the frozen part are frozen too."""
    batch_norm: Literal["shared", "separate"] = "shared"
    """Batch normalisation of first glimpse and windows: one for both (MGNet), or one each."""
    num_glimpses: int = 4
    """T, 1 to 1,000, the first glimpse included."""
    image_size: int = 224
    """Side of the square image in pixels, up to 16,384."""
    glimpse_size: int = 96
    """Side of a glimpse in pixels, at most the image's."""
    scale_range: tuple[float, float] = (0.2, 0.5)
    """Smallest and largest scale s of a window, its side as a share of the image's side; 1 is the whole image."""
    auxiliary_classifier: bool = True
    """A classifier on the bare features of every window, for the auxiliary loss."""
    glimpse_ensemble: bool = False
    """After training, what the auxiliary classifier reads in each window counts as much as the fusion's answer: for few
    training images, where the fusion learns scenes by heart."""
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
"""Settings of the model that are of one kind or another."""


def replace_settings(config: ModelConfig, **settings: Any) -> ModelConfig:
    """``config`` with some settings changed; a kind given by its name has its default settings.

    Raises:
        SettingError: for a setting that does not exist, with the nearest name or the kind that has it.
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
    """MGNet's architecture; a checkpoint is read with the settings it was trained with, by default the paper's."""

    backbone: str = "resnet18"
    """The ResNet it was trained with."""
    num_glimpses: int = 4
    """T, the first glimpse included."""
    scale_factor: float = 2.33
    """Image size over glimpse size: glimpses have floor(image_size / scale_factor) pixels a side."""
    scale_range: tuple[float, float] = (0.2, 0.5)
    """Smallest and largest half side s of a window."""
    image_size: int = 224
    """Side of the square image in pixels."""

    def model(self) -> ModelConfig:
        """The same in our settings.

        Raises:
            SettingError: for settings that do not fit together.
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

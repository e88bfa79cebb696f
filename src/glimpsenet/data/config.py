"""Settings of each kind of data and augmentation; free of torch."""

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from glimpsenet.kinds import Kind, Kinds, require

if TYPE_CHECKING:
    from torchvision.transforms import v2

    from glimpsenet.data.sample import Splits


CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 corruptions that ImageNet-C's score is the mean of; it has four more, meant for validation."""


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(Kind):
    """From photos to squares: for training at random, for evaluation always the same."""

    kinds: ClassVar["Kinds[AugmentationConfig]"] = Kinds(
        "augmentation",
        {
            "none": "glimpsenet.data.config:NoAugmentation",
            "light": "glimpsenet.data.config:LightAugmentation",
            "imagenet": "glimpsenet.data.config:ImageNetAugmentation",
        },
    )
    keeps_boxes: ClassVar[bool] = True
    """Whether training keeps the boxes' evidence in sight."""

    def training_transform(self, size: int) -> "v2.Transform":
        """What a training image goes through, to squares of ``size`` pixels."""
        return self.evaluation_transform(size)

    def evaluation_transform(self, size: int) -> "v2.Transform":
        """What an evaluated image goes through: the whole image, centred on grey."""
        from glimpsenet.data.transforms import FitSquare

        return FitSquare(size)

    def square_scale(self, width: int, height: int, size: int) -> float:
        """Pixels of the square that one pixel of a photo becomes under :meth:`evaluation_transform`."""
        return size / max(width, height)


@dataclass(frozen=True, kw_only=True)
class NoAugmentation(AugmentationConfig):
    """Every image as it is, whole."""

    kind = "none"


@dataclass(frozen=True, kw_only=True)
class LightAugmentation(AugmentationConfig):
    """Small moves, zooms and colour changes; small evidence stays in sight, nothing is mirrored."""

    kind = "light"

    def training_transform(self, size: int) -> "v2.Transform":
        """See :class:`AugmentationConfig`."""
        from glimpsenet.data.transforms import small_changes

        return small_changes(size)


@dataclass(frozen=True, kw_only=True)
class ImageNetAugmentation(AugmentationConfig):
    """The paper's: random resized crop, flip, AutoAugment; resize and centre crop (256 -> 224) for evaluation."""

    kind = "imagenet"
    keeps_boxes = False

    def training_transform(self, size: int) -> "v2.Transform":
        """See :class:`AugmentationConfig`."""
        from glimpsenet.data.transforms import crop_flip_auto_augment

        return crop_flip_auto_augment(size)

    def evaluation_transform(self, size: int) -> "v2.Transform":
        """See :class:`AugmentationConfig`."""
        from glimpsenet.data.transforms import resize_and_crop

        return resize_and_crop(size)

    def square_scale(self, width: int, height: int, size: int) -> float:
        """See :class:`AugmentationConfig`."""
        return round(size * 256 / 224) / min(width, height)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Kind):
    """What a model is trained and measured on."""

    kinds: ClassVar["Kinds[DataConfig]"] = Kinds(
        "data",
        {"digits": "glimpsenet.data.config:DigitsConfig", "folder": "glimpsenet.data.config:FolderConfig"},
    )

    @abstractmethod
    def open(self, image_size: int, seed: int, classes: list[str] | None, channels: int, *, train: bool) -> "Splits":
        """See :func:`glimpsenet.data.loading.open_data`."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What a model card calls it."""

    @property
    def folder(self) -> Path | None:
        """Where its images are; None if they are made."""
        return None

    @property
    def photos(self) -> "FolderConfig":
        """How image files are read and made square by models trained on this data."""
        return FolderConfig(augmentation=NoAugmentation())

    @property
    def skip_bad(self) -> bool:
        """Skip unreadable images, and count them, instead of stopping."""
        return False

    def with_scenes(self, count: int) -> "DataConfig":
        """The same with ``count`` images in val and in test, where images are made; else as it is."""
        return self

    def without_folders(self) -> "DataConfig":
        """The same as others may see it: of paths on this machine, their last part."""
        return self


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(DataConfig):
    """Digit scenes: one handwritten digit at a random location among clutter cut from other digits."""

    kind = "digits"
    train_scenes: int = 12_000
    """Scenes per epoch, 1 or more; every epoch has new ones."""
    val_scenes: int = 1_000
    """Validation scenes, which choose the checkpoint, 1 or more; always the same."""
    test_scenes: int = 1_000
    """Test scenes, which choose nothing, 1 or more; always the same."""
    num_clutter: int = 8
    """Clutter patches per scene, 7 x 7 pixels each, 0 or more."""
    noise: float = 0.05
    """Standard deviation of the Gaussian noise, in units of white, 0 or more."""

    def __post_init__(self) -> None:
        scenes = (self.train_scenes, self.val_scenes, self.test_scenes)
        require(min(scenes) >= 1, "there must be at least one scene of each kind")
        require(self.num_clutter >= 0 and self.noise >= 0, "num_clutter and noise must not be negative")

    def open(self, image_size: int, seed: int, classes: list[str] | None, channels: int, *, train: bool) -> "Splits":
        """See :class:`DataConfig`; scenes have classes and channels of their own."""
        from glimpsenet.data.digits import open_digits

        return open_digits(self, image_size, seed)

    @property
    def title(self) -> str:
        """See :class:`DataConfig`."""
        return "digit scenes"

    def with_scenes(self, count: int) -> "DigitsConfig":
        """See :class:`DataConfig`."""
        return dataclasses.replace(self, val_scenes=count, test_scenes=count)


@dataclass(frozen=True, kw_only=True)
class FolderConfig(DataConfig):
    """Image folders: train/CLASS/*.jpg and val/CLASS/*.jpg; optionally test/CLASS/*.jpg, which chooses nothing, and
    boxes.csv (file,x0,y0,x1,y1). Or the same as shards."""

    kind = "folder"
    data: Path = Path("data")
    """Folder that holds train/, val/ and, optionally, test/ and boxes.csv."""
    augmentation: AugmentationConfig = LightAugmentation()
    """light: small moves, zooms and colour changes; imagenet: random resized crop, flip, AutoAugment."""
    skip_bad: bool = False  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    """Skip unreadable images, and count them, instead of stopping."""
    value_range: tuple[float, float] | None = None
    """Values that become black and white in 16-bit, 32-bit and floating-point grey images, in the files' own units
    (0 4095 for a 12-bit camera); those outside are clipped. If None: the range of the integer type, up to 16 bits,
    and 0 1 for floating point. With it, 8-bit images are an error."""

    def __post_init__(self) -> None:
        black, white = self.value_range or (0.0, 1.0)
        require(
            -math.inf < black < white < math.inf,
            f"value_range must be two finite numbers, black below white, got {black:g} {white:g}",
        )

    def open(self, image_size: int, seed: int, classes: list[str] | None, channels: int, *, train: bool) -> "Splits":
        """See :class:`DataConfig`."""
        from glimpsenet.data.folder import open_folder
        from glimpsenet.data.shards import find_shards, open_shards

        opened: Any = open_shards if find_shards(self.data, "val") else open_folder
        return opened(self, image_size, seed, classes, channels, train=train)

    @property
    def title(self) -> str:
        """See :class:`DataConfig`."""
        return self.data.name

    @property
    def folder(self) -> Path:
        """See :class:`DataConfig`."""
        return self.data

    @property
    def photos(self) -> "FolderConfig":
        """See :class:`DataConfig`."""
        return self

    def without_folders(self) -> "FolderConfig":
        """See :class:`DataConfig`."""
        return dataclasses.replace(self, data=Path(self.data.resolve().name))

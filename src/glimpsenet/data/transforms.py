"""From photos of any shape to squares, and augmentation; boxes are carried along.

All are torchvision v2 transforms on uint8 images and ``tv_tensors.BoundingBoxes``. Normalisation is the model's own
matter (``model.normalization``), on its device.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torchvision.transforms import v2


@contextlib.contextmanager
def augmentation_of(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Random numbers of one sample, which follow from these three alone; torch's own stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash((seed, epoch, index)) % 2**63)
        yield


GREY = 127
"""What is put where there is no image: about the mean of photos, so about 0 once normalised."""


class FitSquare(v2.Transform):
    """The whole image, its shape kept, centred on a grey square of ``size`` pixels; smaller images are enlarged."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Size of the resized image and its four margins."""
        height, width = v2.functional.get_size(flat_inputs[0])
        scale = self.size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        across, down = self.size - width, self.size - height
        return {"size": [height, width], "padding": [across // 2, down // 2, across - across // 2, down - down // 2]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize and pad one image or its boxes."""
        resized = v2.functional.resize(inpt, size=params["size"], antialias=True)
        return v2.functional.pad(resized, padding=params["padding"], fill=GREY)


class CutLong(v2.Transform):
    """The middle of an image that is more than 8 times as long as wide; others as they are.

    Only the middle is seen after a centre crop, but an image of 1 x 60,000 pixels whose short side is enlarged to 256
    would first take 12 GB.
    """

    longest = 8

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """What is left of both sides."""
        height, width = v2.functional.get_size(flat_inputs[0])
        limit = self.longest * min(height, width)
        return {"output_size": [min(height, limit), min(width, limit)]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut one image or its boxes."""
        return v2.functional.center_crop(inpt, **params)


def resize_and_crop(size: int) -> v2.Transform:
    """The paper's way to evaluate: resize the short side and cut the middle (256 -> 224)."""
    return v2.Compose([CutLong(), v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)])


def crop_flip_auto_augment(size: int) -> v2.Transform:
    """The paper's augmentation: random resized crop, flip, AutoAugment (Cubuk et al. 2019)."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET, fill=128),  # MGNet's grey
        ]
    )


def small_changes(size: int) -> v2.Transform:
    """Keeps small evidence in sight and does not mirror: a mirrored sign is another sign."""
    moves = v2.RandomAffine(
        degrees=(-5.0, 5.0),
        translate=(0.1, 0.1),
        scale=(0.8, 1.25),
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=GREY,
    )
    return v2.Compose([FitSquare(size), moves, v2.ColorJitter(0.3, 0.3, 0.3, 0.02)])

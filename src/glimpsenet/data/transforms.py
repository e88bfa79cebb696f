"""From photos of any shape to squares, and augmentation; boxes are carried along.

All are torchvision v2 transforms on uint8 images and ``tv_tensors.BoundingBoxes``. Normalisation is the model's own
matter (``model.normalization``), on its device.
"""

from typing import Any

from torchvision.transforms import v2

GREY = 127
"""What is put where there is no image: about the mean of photos, so about 0 once normalised."""


class PadToSquare(v2.Transform):
    """Centres the image on a grey square of its longer side."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The four margins."""
        height, width = v2.functional.get_size(flat_inputs[0])
        across, down = max(0, height - width), max(0, width - height)
        return {"padding": [across // 2, down // 2, across - across // 2, down - down // 2]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad one image or its boxes."""
        return v2.functional.pad(inpt, padding=params["padding"], fill=GREY)


def fit_square(size: int) -> v2.Transform:
    """The whole image, its shape kept, in a square of ``size`` pixels; smaller images are enlarged."""
    return v2.Compose([v2.Resize(None, max_size=size, antialias=True), PadToSquare()])


def square_scale(width: int, height: int, size: int, augmentation: str) -> float:
    """Pixels of the square that one pixel of a photo becomes under :func:`evaluation_transform`."""
    if augmentation == "imagenet":
        return round(size * 256 / 224) / min(width, height)
    return size / max(width, height)


def evaluation_transform(size: int, augmentation: str) -> v2.Transform:
    """What an evaluated image goes through; ``imagenet`` has the paper's resize and centre crop (256 -> 224)."""
    if augmentation == "imagenet":
        return v2.Compose([v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)])
    return fit_square(size)


def training_transform(size: int, augmentation: str) -> v2.Transform:
    """What a training image goes through.

    ``light`` keeps small evidence in sight and does not mirror (a mirrored sign is another sign); ``imagenet`` is the
    paper's: random resized crop, flip, AutoAugment (Cubuk et al. 2019).
    """
    if augmentation == "imagenet":
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, antialias=True),
                v2.RandomHorizontalFlip(),
                v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
            ]
        )
    if augmentation == "light":
        moves = v2.RandomAffine(
            degrees=(-5.0, 5.0),
            translate=(0.1, 0.1),
            scale=(0.8, 1.25),
            interpolation=v2.InterpolationMode.BILINEAR,
            fill=GREY,
        )
        return v2.Compose([fit_square(size), moves, v2.ColorJitter(0.3, 0.3, 0.3, 0.02)])
    return fit_square(size)

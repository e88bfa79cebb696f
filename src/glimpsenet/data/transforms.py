"""From photos of any shape to squares, and augmentation; boxes are carried along.

All are torchvision v2 transforms on uint8 images and ``tv_tensors.BoundingBoxes``. Normalisation is the model's own
matter (``model.normalization``), on its device.
"""

from typing import Any

from torchvision.transforms import v2

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


def square_scale(width: int, height: int, size: int, augmentation: str) -> float:
    """Pixels of the square that one pixel of a photo becomes under :func:`evaluation_transform`."""
    if augmentation == "imagenet":
        return round(size * 256 / 224) / min(width, height)
    return size / max(width, height)


def evaluation_transform(size: int, augmentation: str) -> v2.Transform:
    """What an evaluated image goes through; ``imagenet`` has the paper's resize and centre crop (256 -> 224)."""
    if augmentation == "imagenet":
        return v2.Compose([v2.Resize(round(size * 256 / 224), antialias=True), v2.CenterCrop(size)])
    return FitSquare(size)


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
        return v2.Compose([FitSquare(size), moves, v2.ColorJitter(0.3, 0.3, 0.3, 0.02)])
    return FitSquare(size)

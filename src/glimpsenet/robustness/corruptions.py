"""The 15 corruptions of ImageNet-C at five severities, applied to given images.

Noise, blur, weather and digital artefacts (Hendrycks & Dietterich 2019, "Benchmarking neural network
robustness to common corruptions and perturbations"). The transformations come from ``imagecorruptions`` (Michaelis et
al. 2019; its maintained branch imagecorruptions-imaug); their strengths suit photos of 224 pixels. The result depends
only on the image, its place, the seed, the corruption and the severity.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet.errors import UserError, needs_extra

SMALLEST = 32
"""Smallest side in pixels that the transformations support."""

TAKE_A_SEED = ("glass_blur", "impulse_noise")
"""Corruptions that use their own random generator."""


def import_corruptions() -> Any:
    """Import the library of the transformations.

    Raises:
        UserError: if it is not installed or does not load.
    """
    with needs_extra("corrupting images", "robustness"):
        import imagecorruptions
    return imagecorruptions


def corrupt(
    images: Float[Tensor, "batch channel size size"], corruption: str, severity: int, *, first: int = 0, seed: int = 0
) -> Float[Tensor, "batch channel size size"]:
    """Corrupt images, 0..1; grey ones are converted to colour and back.

    Args:
        images: images in 0..1, with sides of 32 pixels or more.
        corruption: one of ``glimpsenet.data.imagenet.CORRUPTIONS``.
        severity: 1 to 5.
        first: place of the first image; random numbers depend on the place.
        seed: seed of the random numbers.

    Raises:
        UserError: for images that are too small, or if the library is not installed.
    """
    library = import_corruptions()
    if images.shape[-1] < SMALLEST:
        raise UserError(f"corruptions need sides of {SMALLEST} pixels or more; these images have {images.shape[-1]}")
    made = []
    for place, image in enumerate(images.mul(255).round().to(torch.uint8).cpu(), first):
        number = zlib.crc32(f"{seed} {place} {corruption} {severity}".encode())
        pixels = image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        extra = {"seed": number} if corruption in TAKE_A_SEED else {}
        with _numpy_seed(number):
            after = library.corrupt(pixels, severity=severity, corruption_name=corruption, **extra)
        made.append(torch.from_numpy(np.array(after)).permute(2, 0, 1).float() / 255)
    return _in_channels(torch.stack(made), images.shape[1]).to(images.device)


def _in_channels(images: Tensor, channels: int) -> Tensor:
    """The colour image, or its luma (ITU-R 601)."""
    if channels == 3:
        return images
    return (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """Seed numpy's global random numbers, which the library uses, and restore them afterwards."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)

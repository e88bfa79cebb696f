"""The 15 corruptions of ImageNet-C at five severities, made from given images.

Noise, blur, weather and what cameras do to pictures (Hendrycks & Dietterich 2019, "Benchmarking neural network
robustness to common corruptions and perturbations"). The transformations come from ``imagecorruptions`` (Michaelis et
al. 2019; its maintained branch imagecorruptions-imaug); their strengths are made for photos of 224 pixels. What an
image becomes follows from the seed, its place, the corruption and the severity alone.
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
"""Sides in pixels that the transformations need."""

TAKE_A_SEED = ("glass_blur", "impulse_noise")
"""Those that draw from a generator of their own."""


def import_corruptions() -> Any:
    """The library of the transformations.

    Raises:
        UserError: if it is not installed, or does not load.
    """
    with needs_extra("corrupting images", "robustness"):
        import imagecorruptions
    return imagecorruptions


def corrupt(
    images: Float[Tensor, "batch channel size size"], corruption: str, severity: int, *, first: int = 0, seed: int = 0
) -> Float[Tensor, "batch channel size size"]:
    """Images, 0..1, as they look after a corruption; grey ones become colour on the way, and grey again.

    Args:
        images: 0..1, 32 pixels or more a side.
        corruption: one of ``glimpsenet.data.imagenet.CORRUPTIONS``.
        severity: 1 to 5.
        first: place of the first image; each has random numbers of its own.
        seed: of the random numbers.

    Raises:
        UserError: for images that are too small, or if the library is not installed.
    """
    library = import_corruptions()
    if images.shape[-1] < SMALLEST:
        raise UserError(f"corruptions need images of {SMALLEST} pixels or more a side; these have {images.shape[-1]}")
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
    """Colour, or its luma (ITU-R 601)."""
    if channels == 3:
        return images
    return (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """numpy's global random numbers, which the library draws from, for a moment."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)

"""Pictures on their way between browser and model; nothing of them stays on this side.

    upload (bytes) -> read, made square -> PNG to the browser -> PNG back with every question -> the same pixels

PNG loses nothing, so the page sees what ``glimpsenet predict`` sees, and no visitor can come across another's picture.
"""

import base64
import binascii
import io

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from glimpsenet.data.images import decode_image
from glimpsenet.errors import UnreadableImageError
from glimpsenet.runs import Run

MAX_BYTES = 20_000_000
"""The largest body of a request: a photo as a camera writes it."""
MAX_PIXELS = 50_000_000
"""The largest picture that is decoded for a visitor."""
_PNG = "data:image/png;base64,"

Picture = UInt8[Tensor, "channel size size"]
"""A square as the model takes it, not normalised."""


def make_square(upload: bytes, run: Run) -> Picture:
    """An uploaded image file as the square that ``run`` looks at, prepared as it is for evaluation.

    Raises:
        UnreadableImageError: saying what is wrong with it.
    """
    photos = run.config.photos
    transform = photos.augmentation.evaluation_transform(run.config.model.image_size)
    return transform(decode_image(upload, run.channels, photos.value_range, max_pixels=MAX_PIXELS))


def to_url(image: Tensor) -> str:
    """``[channel, height, width]``, uint8 or 0..1, as a PNG in a data URL."""
    eight_bits = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return _PNG + base64.b64encode(to_png(eight_bits)).decode()


def to_png(image: UInt8[Tensor, "channel height width"]) -> bytes:
    """As a PNG file."""
    file = io.BytesIO()
    functional.to_pil_image(image.cpu()).save(file, format="PNG", compress_level=1)  # speed: it goes a short way
    return file.getvalue()


def from_url(url: str, run: Run) -> Picture:
    """The inverse of :func:`to_url` for a square of ``run``.

    Raises:
        UnreadableImageError: if it is anything else.
    """
    size = run.config.model.image_size
    try:
        picture = decode_image(
            base64.b64decode(url.removeprefix(_PNG), validate=True), run.channels, max_pixels=size**2
        )
    except binascii.Error as error:
        raise UnreadableImageError("the picture is no PNG in a data URL") from error
    if picture.shape[1:] != (size, size):
        found = f"{picture.shape[2]} x {picture.shape[1]}"
        raise UnreadableImageError(f"the picture has {found} pixels; this model takes {size} x {size}")
    return picture


def thumbnail(upload: bytes, run: Run, side: int) -> str:
    """An image file, small, as a data URL; its pixels as ``run`` reads them.

    Raises:
        UnreadableImageError: saying what is wrong with it.
    """
    photo = decode_image(upload, value_range=run.config.photos.value_range, max_pixels=MAX_PIXELS)
    image = functional.to_pil_image(photo)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return to_url(functional.pil_to_tensor(image))

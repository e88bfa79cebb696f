"""Pictures between browser and model; the server keeps none of them.

    upload (bytes) -> decoded, made square -> PNG to the browser -> PNG back with each request -> the same pixels

PNG is lossless, so the page works on the same pixels as ``glimpsenet predict``. Visitors cannot get each other's
pictures.
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
"""The largest request body: enough for a photo from a camera."""
MAX_PIXELS = 50_000_000
"""The largest picture that is decoded."""
_PNG = "data:image/png;base64,"

Picture = UInt8[Tensor, "channel size size"]
"""A square as the model takes it, before normalisation."""


def make_square(upload: bytes, run: Run) -> Picture:
    """An uploaded image file as the square image that ``run`` takes, prepared as for evaluation.

    Raises:
        UnreadableImageError: if it cannot be read; states the reason.
    """
    photos = run.config.photos
    transform = photos.augmentation.evaluation_transform(run.config.model.image_size)
    return transform(decode_image(upload, run.channels, photos.value_range, max_pixels=MAX_PIXELS))


def to_url(image: Tensor) -> str:
    """``[channel, height, width]``, uint8 or 0..1, as a PNG in a data URL."""
    eight_bits = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return _PNG + base64.b64encode(to_png(eight_bits)).decode()


def to_png(image: UInt8[Tensor, "channel height width"]) -> bytes:
    """Encode as a PNG file."""
    file = io.BytesIO()
    functional.to_pil_image(image.cpu()).save(file, format="PNG", compress_level=1)  # favour speed over size
    return file.getvalue()


def from_url(url: str, run: Run) -> Picture:
    """The inverse of :func:`to_url` for a square of ``run``.

    Raises:
        UnreadableImageError: for anything else.
    """
    size = run.config.model.image_size
    try:
        picture = decode_image(
            base64.b64decode(url.removeprefix(_PNG), validate=True), run.channels, max_pixels=size**2
        )
    except binascii.Error as error:
        raise UnreadableImageError("the picture is not a PNG in a data URL") from error
    if picture.shape[1:] != (size, size):
        found = f"{picture.shape[2]} x {picture.shape[1]}"
        raise UnreadableImageError(f"the picture has {found} pixels; this model takes {size} x {size}")
    return picture


def thumbnail(upload: bytes, run: Run, side: int) -> str:
    """A thumbnail of an image file as a data URL, with pixels as ``run`` reads them.

    Raises:
        UnreadableImageError: if it cannot be read; states the reason.
    """
    photo = decode_image(upload, value_range=run.config.photos.value_range, max_pixels=MAX_PIXELS)
    image = functional.to_pil_image(photo)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return to_url(functional.pil_to_tensor(image))

"""Reading photos as they come: any mode Pillow knows -> RGB uint8, upright.

Greyscale, palette, CMYK, alpha (laid on white) and 16-bit (scaled, not clipped) images become 8-bit RGB; the EXIF
orientation is applied. Anything else is an :class:`UnreadableImageError` that names the file.

Files may be a stranger's. Only the decoders of known formats are asked (Pillow would hand PostScript to Ghostscript,
whatever the file is called), only regular files are opened (a pipe would be waited for), and the size that a file
claims is checked before a pixel of it is decoded.
"""

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from glimpsenet.errors import UserError, first_line

HEIF_EXTENSIONS = (".heic", ".heif")
# fmt: off
EXTENSIONS = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".j2k", ".mpo", ".ppm",
    ".pgm", *HEIF_EXTENSIONS,
)
# fmt: on
"""What names of images end in, in lower case."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Pillow's names of the formats behind the extensions (MPO begins like JPEG, and its decoder takes it)."""
Image.init()  # all decoders at once; Pillow would not find the rarer ones by name before
try:
    import pillow_heif
except ImportError:  # the extra heif
    pass
else:
    pillow_heif.register_heif_opener(thumbnails=False)
    FORMATS = (*FORMATS, "HEIF")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
"""What stands in bytes 8 to 11 of a HEIF file, after ``ftyp``; iPhones' photos are ``heic``."""
MAX_PIXELS = 89_478_485
"""The largest image that is decoded: Pillow's own limit. Some kilobytes of PNG can claim any size, and decoding takes
up to 16 bytes a pixel."""


class UnreadableImageError(UserError):
    """A file that is no image, or a broken one."""


def read_image(file: Path, channels: int = 3) -> Tensor:
    """An image file as uint8 ``[channel, height, width]``, upright; ``channels`` is 3 (RGB) or 1 (grey).

    Raises:
        UnreadableImageError: naming the file and what is wrong with it.
    """
    with _named(file):
        return _decode(file, channels)


def check_header(file: Path) -> None:
    """Refuse a file that :func:`read_image` would refuse before it decodes a pixel; a broken rest goes unseen.

    Raises:
        UnreadableImageError: naming the file and what is wrong with it.
    """
    with _named(file), _open(file):
        pass


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """What goes wrong with an image file names it."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise ValueError("it is no regular file")
        yield
    except UnidentifiedImageError as error:
        reason = _lacking_decoder(_first_bytes(file)) or "the file is not an image of a known format"
        raise UnreadableImageError(f"cannot read image {file}: {reason}") from error
    except Exception as error:  # decoders raise all kinds; whatever it is, this file is not readable
        # Pillow repeats the name, which stands here already.
        reason = first_line(error).replace(repr(str(file)), "the file").replace(str(file), "the file")
        raise UnreadableImageError(f"cannot read image {file}: {reason}") from error


def _first_bytes(file: Path) -> bytes:
    try:
        with open(file, "rb") as stream:
            return stream.read(12)
    except OSError:  # it was readable a moment ago
        return b""


def _lacking_decoder(start: bytes) -> str | None:
    """How to read content that begins like this, if an extra would; by content, for photos are renamed."""
    if "HEIF" not in FORMATS and start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        return "reading HEIF needs pillow-heif: pip install 'glimpsenet[heif]'"
    return None


def decode_image(content: bytes, channels: int = 3, *, name: str = "the image", max_pixels: int = MAX_PIXELS) -> Tensor:
    """The same of an image file in memory, which errors call ``name``.

    Raises:
        UnreadableImageError: saying what is wrong with it.
    """
    try:
        return _decode(io.BytesIO(content), channels, max_pixels)
    except UnidentifiedImageError as error:
        reason = _lacking_decoder(content) or "it is no image of a known format"
        raise UnreadableImageError(f"cannot read {name}: {reason}") from error
    except Exception as error:
        raise UnreadableImageError(f"cannot read {name}: {first_line(error)}") from error


@contextlib.contextmanager
def _open(source: Path | io.BytesIO, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    # Pillow warns of odd metadata; what it then makes of the pixels is all there is to say about the file.
    with warnings.catch_warnings(action="ignore"), Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {max_pixels}; make it smaller")
        yield image


def _decode(source: Path | io.BytesIO, channels: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    with _open(source, max_pixels) as image:
        upright = ImageOps.exif_transpose(image)
        picture = _to_eight_bits(upright).convert("L" if channels == 1 else "RGB")
        return functional.pil_to_tensor(picture)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = functional.pil_to_tensor(image).to(torch.int32)
        return functional.to_pil_image(values.clamp_(0, 65535).floor_divide_(257).to(torch.uint8))
    if image.mode == "F":
        values = functional.pil_to_tensor(image)
        if not values.isfinite().all():
            raise ValueError("some of its pixels are not finite numbers")
        brightest = values.max().clamp(min=1e-12)
        return functional.to_pil_image((values / brightest * 255).clamp(0, 255).to(torch.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image

"""Reading photos as they come: any mode Pillow knows -> RGB uint8, upright.

Greyscale, palette, CMYK, alpha (laid on white) and 16-bit (scaled, not clipped) images become 8-bit RGB; the EXIF
orientation is applied. Anything else is an :class:`UnreadableImageError` that names the file.

Files may be a stranger's. Only the decoders of known formats are asked (Pillow would hand PostScript to Ghostscript,
whatever the file is called), only regular files are opened (a pipe would be waited for), and the size that a file
claims is checked before a pixel of it is decoded.
"""

import contextlib
import io
import itertools
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from glimpsenet.errors import UserError, did_you_mean, first_line

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
"""Pillow's names of the formats behind the extensions."""
Image.init()  # all decoders at once; Pillow would not find the rarer ones by name before
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
        raise UnreadableImageError(f"cannot read image {file}: the file is not an image of a known format") from error
    except Exception as error:  # decoders raise all kinds; whatever it is, this file is not readable
        # Pillow repeats the name, which stands here already.
        reason = first_line(error).replace(repr(str(file)), "the file").replace(str(file), "the file")
        raise UnreadableImageError(f"cannot read image {file}: {reason}") from error


def decode_image(content: bytes, channels: int = 3, *, name: str = "the image", max_pixels: int = MAX_PIXELS) -> Tensor:
    """The same of an image file in memory, which errors call ``name``.

    Raises:
        UnreadableImageError: saying what is wrong with it.
    """
    try:
        return _decode(io.BytesIO(content), channels, max_pixels)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"cannot read {name}: it is no image of a known format") from error
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


def walk_images(folder: Path) -> Iterator[Path]:
    """Image files of a folder and of all folders below, in no order to rely on.

    Links are followed (ImageNet100 is made of them), but no folder is entered twice and none above ``folder``: a link
    that leads back ends there.

    Raises:
        UserError: naming a folder that cannot be read.
    """
    entered = {_identity(above) for above in folder.resolve().parents}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            if (identity := _identity(here)) in entered:
                continue
            with os.scandir(here) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"cannot read the folder {here}: {error.strerror}; remove it or mend it") from error
        entered.add(identity)
        folders = {entry.name for entry in entries if _is_folder(entry)}
        waiting += [here / name for name in sorted(folders, reverse=True)]
        # Links to nowhere and the like too: whoever reads them tells what they are.
        names = (entry.name for entry in entries if entry.name not in folders)
        yield from (here / name for name in names if name.lower().endswith(EXTENSIONS))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def find_images(path: Path) -> list[Path]:
    """Image files of a folder and all folders below, sorted; the path itself if it is a file.

    Raises:
        UserError: if there is nothing there, or no image in it.
    """
    if not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        names = [other.name for other in itertools.islice(beside, 1000)]
        way = did_you_mean(path.name, names, "name image files, or folders of them")
        raise UserError(f"no such file or folder: {path}; {way}")
    if not path.is_dir():
        return [path]
    files = sorted(walk_images(path))
    if not files:
        raise UserError(f"no images in {path}; known are {' '.join(EXTENSIONS)}")
    return files

"""Reading photos as they come: any mode Pillow knows -> RGB uint8, upright.

What becomes of each mode is in :mod:`glimpsenet.data.pixels`; the EXIF orientation is applied. Whatever cannot be read
is an :class:`~glimpsenet.errors.UnreadableImageError` that names the file.

Files may be untrusted. Only the decoders of known formats are asked (Pillow would hand PostScript to Ghostscript,
whatever the file is called), only regular files are opened (a pipe would be waited for), and the size that a file
claims is checked before a pixel of it is decoded.
"""

import contextlib
import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from glimpsenet.data.noise import listening
from glimpsenet.data.pixels import ValueRange, to_eight_bits
from glimpsenet.errors import UnreadableImageError, first_line

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
MAX_SCANS = 100
"""The most passes that a JPEG file may take over its pixels; usual are up to ten, and some bytes can ask for each."""
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Python prints what Pillow logs before it raises it


def read_image(file: Path, channels: int = 3, value_range: ValueRange | None = None) -> Tensor:
    """An image file as uint8 ``[channel, height, width]``, upright.

    Args:
        file: of a known format, whatever its name.
        channels: 3 (RGB) or 1 (grey).
        value_range: the values that become black and white, of grey with more than 8 bits; see
            :class:`~glimpsenet.data.config.FolderConfig`.

    Raises:
        UnreadableImageError: naming the file and what is wrong with it.
    """
    with _named(file):
        return _decode(file, channels, value_range, name=str(file))


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


def decode_image(
    content: bytes,
    channels: int = 3,
    value_range: ValueRange | None = None,
    *,
    name: str = "the image",
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    """The same of an image file in memory, which errors call ``name``.

    Raises:
        UnreadableImageError: saying what is wrong with it.
    """
    try:
        return _decode(io.BytesIO(content), channels, value_range, name=name, max_pixels=max_pixels)
    except UnidentifiedImageError as error:
        reason = _lacking_decoder(content) or "it is no image of a known format"
        raise UnreadableImageError(f"cannot read {name}: {reason}") from error
    except Exception as error:
        raise UnreadableImageError(f"cannot read {name}: {first_line(error)}") from error


@contextlib.contextmanager
def _open(source: Path | io.BytesIO, max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile.ImageFile]:
    with _pillow_warns_of_nothing(), Image.open(source, formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {max_pixels}; make it smaller")
        yield image


def _decode(
    source: Path | io.BytesIO,
    channels: int,
    value_range: ValueRange | None,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
) -> Tensor:
    with _open(source, max_pixels) as image:
        if image.format in ("JPEG", "MPO"):
            _check_scans(image)
        with listening(name):
            image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return functional.pil_to_tensor(to_eight_bits(image, value_range).convert("L" if channels == 1 else "RGB"))


class _Readers:
    """How many threads read, and how the filters of warnings come back after the last."""

    lock = threading.Lock()
    reading = 0
    filters = contextlib.ExitStack()

    @classmethod
    def unlock(cls) -> None:
        """In a process that was forked while a thread held the lock, which is not there to release it."""
        cls.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Readers.unlock)


@contextlib.contextmanager
def _pillow_warns_of_nothing() -> Iterator[None]:
    """Pillow warns of odd metadata; what it then makes of the pixels is all there is to say about the file.

    Filters of warnings are the process's: were each thread to save and restore them, the last to come out would restore
    what another one had set.
    """
    with _Readers.lock:
        if _Readers.reading == 0:
            _Readers.filters.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\b")
        _Readers.reading += 1
    try:
        yield
    finally:
        with _Readers.lock:
            _Readers.reading -= 1
            if _Readers.reading == 0:
                _Readers.filters.close()


_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")
"""Of a JPEG file's segment, with its length behind it; compressed data hold none."""
_SCAN, _END = b"\xda", b"\xd9"


def _check_scans(image: ImageFile.ImageFile) -> None:
    """Refuse a JPEG file of more than MAX_SCANS passes: ten bytes are enough for one, and a second for many pixels."""
    file = image.fp
    assert file is not None
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    scans, place = 0, 0
    while (found := _MARKER.search(content, place)) and found[1] != _END:
        scans += found[1] == _SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"its pixels are spread over more than {MAX_SCANS} scans; save it anew")
        place = found.end() + int.from_bytes(content[found.end() : found.end() + 2])

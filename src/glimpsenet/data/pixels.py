"""From any mode that Pillow knows to 8 bits, grey or RGB: what docs/own-images.md tabulates.

8-bit images keep their values; alpha and transparent colours are laid on white; inks and LAB become sRGB through
colour profiles. Grey of more than 8 bits is scaled:

    8-bit value = round(255 * (value - black) / (white - black)), cut off at 0 and 255

black and white are the ``value_range``: of the file's own type, or the one given.
"""

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from glimpsenet.errors import first_line

ValueRange = tuple[float, float]
"""The values that become black and white, in the file's own units."""

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF's tags
_AT_ONCE = 2**20
"""Values that are scaled at a time, in float64: memory stays a few megabytes above the image."""


def to_eight_bits(image: Image.Image, value_range: ValueRange | None = None) -> Image.Image:
    """An image as it was opened, in mode L, RGB, or another of 8 bits that Pillow converts to these without loss.

    Args:
        image: of any mode.
        value_range: black and white of grey with more than 8 bits; if not given, the full range of an integer type
            of up to 16 bits, and 0..1 of floating point.

    Raises:
        ValueError: for values or types that the range does not fit, and for a colour profile that is broken.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _scale_grey(image, value_range)
    if value_range is not None:
        kind = f"{image.mode}, at most 8 bits a channel"
        raise ValueError(f"value_range {value_range} is for grey of 16 or 32 bits, and this image is read as {kind}")
    if image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == (2,):
        return Image.fromarray(np.asarray(image) ^ 128)  # signed: -128..127
    if image.mode == "LAB":
        return _made(ImageCms.applyTransform(image, _lab_to_srgb()))
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        return _inks_to_srgb(image, profile)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image


def _scale_grey(image: Image.Image, value_range: ValueRange | None) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and _tag(image, _BITS) == (32,) and _tag(image, _SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)  # Pillow has signed ones only
    if image.mode == "F" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are not finite numbers")
    black, white = value_range or _range_of_type(image, values)
    scaled = np.empty(values.size, np.uint8)
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        share = (flat[start : start + _AT_ONCE].astype(np.float64) - black) / (white - black)
        scaled[start : start + _AT_ONCE] = (255 * share).round().clip(0, 255)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[flat == transparent] = 255
    return Image.fromarray(scaled.reshape(values.shape))


def _range_of_type(image: Image.Image, values: np.ndarray) -> ValueRange:
    """Black and white of a file that says no more than its type."""
    bits, signed = _tag(image, _BITS, (16,))[0], _tag(image, _SAMPLE_FORMAT) == (2,)
    if image.mode == "F":
        least, most = float(values.min()), float(values.max())
        if least < 0 or most > 1:
            raise ValueError(
                f"its values, {least:g} to {most:g}, are not in 0..1; value_range says which are black and white"
            )
        span = (0.0, 1.0)
    elif bits == 32:
        raise ValueError(
            f"its values, {values.min()} to {values.max()}, are 32-bit integers, which have no usual black and white;"
            " value_range says which they are"
        )
    else:  # TIFF has 12 bits, and signed ones, too; other formats are brought to 16 by Pillow
        span = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    black, white = span
    return (white, black) if _tag(image, _PHOTOMETRIC) == 0 else span  # 0: "white is zero", which Pillow leaves to us


def _tag(image: Image.Image, tag: int, otherwise: Any = None) -> Any:
    """A TIFF file's; other files have none."""
    return getattr(image, "tag_v2", {}).get(tag, otherwise)


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    # Unless it computes every pixel, it interpolates between 33 steps a channel: dark colours are off by up to 30.
    exact = ImageCms.Flags.NOOPTIMIZE
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB", flags=exact)


def _inks_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        return _made(ImageCms.profileToProfile(image, io.BytesIO(profile), _srgb(), outputMode="RGB"))
    except ImageCms.PyCMSError as error:
        raise ValueError(f"its inks' colour profile cannot be used ({first_line(error)}); remove it") from error


def _made(converted: Image.Image | None) -> Image.Image:
    assert converted is not None  # as it is only where an image is changed in place
    return converted

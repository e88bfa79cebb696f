"""Reading photos as they come: any mode Pillow knows -> RGB uint8, upright.

Greyscale, palette, CMYK, alpha (laid on white) and 16-bit (scaled, not clipped) images become 8-bit RGB; the EXIF
orientation is applied. Anything else is an :class:`UnreadableImageError` that names the file.
"""

from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from glimpsenet.errors import UserError, first_line

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")


class UnreadableImageError(UserError):
    """A file that is no image, or a broken one."""


def read_image(file: Path, channels: int = 3) -> Tensor:
    """An image file as uint8 ``[channel, height, width]``, upright; ``channels`` is 3 (RGB) or 1 (grey).

    Raises:
        UnreadableImageError: naming the file and what is wrong with it.
    """
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            picture = _to_eight_bits(upright).convert("L" if channels == 1 else "RGB")
            return functional.pil_to_tensor(picture)
    except Exception as error:  # decoders raise all kinds; whatever it is, this file is not readable
        # Pillow repeats the name, which stands here already.
        reason = first_line(error).replace(repr(str(file)), "the file").replace(str(file), "the file")
        raise UnreadableImageError(f"cannot read image {file}: {reason}") from error


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = functional.pil_to_tensor(image).to(torch.int64)
        return functional.to_pil_image((values.clamp(0, 65535) // 257).to(torch.uint8))
    if image.mode == "F":
        values = functional.pil_to_tensor(image)
        brightest = values.max().clamp(min=1e-12)
        return functional.to_pil_image((values / brightest * 255).clamp(0, 255).to(torch.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image


def find_images(path: Path) -> list[Path]:
    """Image files of a folder and all folders below, sorted; the path itself if it is a file.

    Raises:
        UserError: if there is nothing there, or no image in it.
    """
    if not path.exists():
        raise UserError(f"no such file or folder: {path}")
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
    if not files:
        raise UserError(f"no images in {path}; known are {' '.join(EXTENSIONS)}")
    return files

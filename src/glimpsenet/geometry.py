"""Windows of an image as (s, tx, ty), matrices and pixel boxes.

    window of (s, tx, ty)  =  [tx - s, tx + s] x [ty - s, ty + s]

Conventions, each pinned by a test of its name in ``tests/test_geometry.py``:

- Normalised coordinates: x to the right, y down; -1 and +1 are the *outer edges* of the first and the last pixel, so
  pixel i of n spans [2 i / n - 1, 2 (i + 1) / n - 1].
- Affine parameters (s, tx, ty): the window's half side and centre in normalised coordinates. s = 1, tx = ty = 0 is the
  whole image (the first glimpse); a window lies inside when ``|tx| <= 1 - s`` and ``|ty| <= 1 - s``.
- Boxes are in pixels, half-open: (x0, y0, x1, y1) holds the pixels x0 <= x < x1, y0 <= y < y1.
- Images are square, ``image_size`` pixels a side; tensors are batch-first, windows and boxes the last axis.
- Geometry always speaks of pixel edges. Only the sampler (``models/sampling.py``) knows ``align_corners``.

The affine parametrisation is that of spatial transformers (Jaderberg et al. 2015) without rotation and shear, as used
by MGNet (Tan et al. 2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor

HIT_SHARE = 0.75
"""A window hits a box when it covers at least this share of the box's area."""


def normalized_to_pixel(coordinate: Tensor, image_size: int) -> Tensor:
    """Normalised coordinate -> pixels from the image's left (top) edge; +1 is ``image_size``."""
    return (coordinate + 1) * (image_size / 2)


def pixel_to_normalized(pixel: Tensor, image_size: int) -> Tensor:
    """Pixels from the image's left (top) edge -> normalised coordinate; 0 is -1."""
    return pixel * (2 / image_size) - 1


def first_window(like: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch 3"]:
    """(1, 0, 0) for every image of ``like``: the whole image."""
    windows = like.new_zeros(like.shape[0], 3, dtype=torch.float32)
    windows[:, 0] = 1
    return windows


def window_to_box(windows: Float[Tensor, "*batch 3"], image_size: int) -> Float[Tensor, "*batch 4"]:
    """The window of ``windows`` as a pixel box (x0, y0, x1, y1)."""
    scale, centre = windows[..., :1], windows[..., 1:]
    return normalized_to_pixel(torch.cat([centre - scale, centre + scale], -1), image_size)


def box_to_window(box: Float[Tensor, "*batch 4"], image_size: int) -> Float[Tensor, "*batch 3"]:
    """The smallest window with the box's centre that holds the box (a pixel box, x0 < x1 and y0 < y1).

    It may leave the image where the box is longer than wide and near a border; see :func:`move_inside`.
    """
    corner, opposite = pixel_to_normalized(box, image_size).split(2, -1)
    scale = ((opposite - corner) / 2).amax(-1, keepdim=True)
    return torch.cat([scale, (corner + opposite) / 2], -1)


def window_to_matrix(windows: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2 3"]:
    """[[s, 0, tx], [0, s, ty]]: maps the glimpse's normalised coordinates to the image's."""
    scale, tx, ty = windows.unbind(-1)
    zero = torch.zeros_like(scale)
    return torch.stack([torch.stack([scale, zero, tx], -1), torch.stack([zero, scale, ty], -1)], -2)


def matrix_to_window(matrix: Float[Tensor, "*batch 2 3"]) -> Float[Tensor, "*batch 3"]:
    """The inverse of :func:`window_to_matrix`.

    Raises:
        ValueError: if a matrix rotates, shears, or scales the axes differently.
    """
    if bool(matrix[..., 0, 1].any() or matrix[..., 1, 0].any() or (matrix[..., 0, 0] != matrix[..., 1, 1]).any()):
        raise ValueError("a window's matrix is [[s, 0, tx], [0, s, ty]]; this one rotates, shears or stretches")
    return torch.stack([matrix[..., 0, 0], matrix[..., 0, 2], matrix[..., 1, 2]], -1)


def move_inside(windows: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The nearest window of the same scale (at most 1) that lies inside the image."""
    scale = windows[..., :1].clamp(max=1)
    return torch.cat([scale, windows[..., 1:].clamp(scale - 1, 1 - scale)], -1)


def lies_inside(windows: Float[Tensor, "*batch 3"], tolerance: float = 1e-6) -> Tensor:
    """Whether each window has a positive scale and lies inside the image (bool, ``[*batch]``)."""
    scale, centre = windows[..., 0], windows[..., 1:]
    return (scale > 0) & (centre.abs().amax(-1) <= 1 - scale + tolerance)


def cell_centres(windows: Float[Tensor, "*batch 3"], rows: int, columns: int) -> Float[Tensor, "*batch rows columns 2"]:
    """Where the centres of a grid over each window lie in the image, as normalised (x, y): a feature map's places."""
    y = (torch.arange(rows, device=windows.device, dtype=windows.dtype) + 0.5) * (2 / rows) - 1
    x = (torch.arange(columns, device=windows.device, dtype=windows.dtype) + 0.5) * (2 / columns) - 1
    own = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    return windows[..., None, None, 1:] + windows[..., None, None, :1] * own


def covered_share(
    windows: Float[Tensor, "*batch 3"], box: Float[Tensor, "*#batch 4"], image_size: int
) -> Float[Tensor, "*batch"]:
    """The share (0..1) of the pixel box's area that lies in the window; NaN where the box is NaN (unknown)."""
    area = (box[..., 2:] - box[..., :2]).prod(-1)
    return _common_area(window_to_box(windows, image_size), box) / area


def overlap(windows: Float[Tensor, "*#batch 3"], others: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*batch"]:
    """Intersection over union (0..1) of each pair of windows, broadcast over the batch."""
    common = _common_area(window_to_box(windows, 2), window_to_box(others, 2))
    return common / (4 * (windows[..., 0].square() + others[..., 0].square()) - common)


def _common_area(boxes: Float[Tensor, "*batch 4"], others: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "*batch"]:
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    return sides.clamp(min=0).prod(-1)

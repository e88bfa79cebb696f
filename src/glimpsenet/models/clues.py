"""Spatial clues: how a glimpse's features encode where they were seen.

2-D positional encoding (Supeene & Wang, eq. 1), d divisible by 4, k = 1..d/4:

    w_k = 10000^(-4 k / d),   p(x, y) = (sin w_1 x, cos w_1 x, sin w_1 y, cos w_1 y, sin w_2 x, ...)

x and y are interleaved, so that every head of a multi-head attention sees both. This extends the encoding of Vaswani et
al. (2017) to two dimensions. MGNet (Tan et al. 2021) appends (s, tx, ty) to the features instead.
"""

import abc

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sinusoidal_encoding(coordinates: Float[Tensor, "*batch axes"], width: int) -> Float[Tensor, "*batch {width}"]:
    """Eq. 1 of the report for any number of axes n: w_k = 10000^(-2 n k / width), k = 1..width / (2 n).

    Raises:
        ValueError: if ``width`` is not divisible by 2 n.
    """
    axes = coordinates.shape[-1]
    if width % (2 * axes):
        raise ValueError(f"a positional encoding of {axes} coordinates needs a width divisible by {2 * axes}: {width}")
    k = torch.arange(1, width // (2 * axes) + 1, dtype=coordinates.dtype, device=coordinates.device)
    angles = coordinates[..., None, :] * (10000 ** (-2 * axes * k / width))[:, None]
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)


def check_divisible_by_four(channels: int) -> None:
    """Check the width that eq. 1 requires.

    Raises:
        ValueError: if ``channels`` is not divisible by 4.
    """
    if channels % 4:
        raise ValueError(f"the 2-D positional encoding needs a width divisible by 4; the backbone has {channels}")


def position_in_pixels(centre: Float[Tensor, "*batch axes"], image_size: int) -> Float[Tensor, "*batch axes"]:
    """Normalised [-1, 1] -> [0, image_size - 1], the unit of x and y in eq. 1."""
    return (centre + 1) * ((image_size - 1) / 2)


class SpatialClue(nn.Module, abc.ABC):
    """Combines a glimpse's features with where they were seen; no gradient flows into the window."""

    width: int
    """Channels of the output."""

    @abc.abstractmethod
    def forward(
        self, features: Float[Tensor, "batch channel"], window: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch width"]:
        """Features of one glimpse and its window -> the fusion's input."""


class AffineClue(SpatialClue):
    """MGNet's clue: [f ; s, tx, ty]."""

    def __init__(self, channels: int):
        super().__init__()
        self.width: int = channels + 3

    def forward(
        self, features: Float[Tensor, "batch channel"], window: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch width"]:
        """See :class:`SpatialClue`."""
        return torch.cat([features, window.detach().to(features.dtype)], -1)


class PositionalClue(SpatialClue):
    """The report's clue: f + p(x, y) at the window's centre, in pixels of the full image.

    ``with_scale`` adds p(w), w the window's side in the same unit; eq. 1 omits the scale.
    """

    def __init__(self, channels: int, image_size: int, with_scale: bool = False):
        super().__init__()
        check_divisible_by_four(channels)
        self.width = channels
        self.image_size = image_size
        self.with_scale = with_scale

    def forward(
        self, features: Float[Tensor, "batch channel"], window: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch width"]:
        """See :class:`SpatialClue`."""
        window = window.detach()
        code = sinusoidal_encoding(position_in_pixels(window[:, 1:], self.image_size), self.width)
        if self.with_scale:
            code = code + sinusoidal_encoding(window[:, :1] * (self.image_size - 1), self.width)
        return features + code.to(features.dtype)


class NoClue(SpatialClue):
    """The features, unchanged."""

    def __init__(self, channels: int):
        super().__init__()
        self.width = channels

    def forward(
        self, features: Float[Tensor, "batch channel"], window: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch width"]:
        """See :class:`SpatialClue`."""
        return features

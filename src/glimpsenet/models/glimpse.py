"""Glimpse generators: differentiable crops of a window to g x g pixels.

    glimpse(i, j) = image(tx + s u_i, ty + s u_j),   u the glimpse's own pixel positions in [-1, 1]

A generator is used in two moves: ``prepare`` once per image, then ``generator(prepared, affine)`` once per step.

Sources: spatial transformers (Jaderberg et al. 2015) for the crop that is differentiable in (s, tx, ty); pyramids with
trilinear blending (Williams 1983, "Pyramidal parametrics") for the anti-aliased one.
"""

import abc
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Prepared = list[Tensor]
"""What ``prepare`` returns: the image, and for a pyramid its halvings, each ``[batch, channel, size, size]``."""


def sampling_grid(
    affine: Float[Tensor, "batch 3"], glimpse_size: int, align_corners: bool
) -> Float[Tensor, "batch size size 2"]:
    """Where each pixel of the glimpse lies in the image, as (x, y) for ``grid_sample``.

    With ``align_corners`` the outermost positions are the window's ends (MGNet), else the centres of the glimpse's
    pixels, which tile the window.
    """
    extent = 1.0 if align_corners else 1 - 1 / glimpse_size
    ticks = torch.linspace(-extent, extent, glimpse_size, dtype=affine.dtype, device=affine.device)
    x, y = (affine[:, 1:, None] + affine[:, :1, None] * ticks).unbind(1)
    return torch.stack([x[:, None, :].expand(-1, glimpse_size, -1), y[:, :, None].expand(-1, -1, glimpse_size)], -1)


class GlimpseGenerator(nn.Module, abc.ABC):
    """Crops the window (s, tx, ty) and resamples it to ``glimpse_size`` pixels a side."""

    def __init__(self, glimpse_size: int):
        super().__init__()
        self.glimpse_size = glimpse_size

    @abc.abstractmethod
    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """Whatever all glimpses of the images share, computed once."""

    @abc.abstractmethod
    def sample(self, prepared: Prepared, affine: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """The glimpses, in the precision of ``affine``."""

    def forward(self, prepared: Prepared, affine: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """One glimpse of each image, differentiable in ``affine`` and in the image."""
        # Lower precision would move windows by whole pixels: coordinates stay out of autocast.
        with torch.autocast(prepared[0].device.type, enabled=False):
            return self.sample(prepared, affine)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"glimpse_size={self.glimpse_size}"


class BilinearGlimpses(GlimpseGenerator):
    """Bilinear sampling with zeros outside and no low-pass filter; ``align_corners=True`` is MGNet's to the letter.

    A window that spans more pixels than the glimpse has skips some of them: it aliases.
    """

    def __init__(self, glimpse_size: int, align_corners: bool = False):
        super().__init__(glimpse_size)
        self.align_corners = align_corners

    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """Nothing to share but the images themselves."""
        return [images]

    def sample(self, prepared: Prepared, affine: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """See :class:`GlimpseGenerator`."""
        grid = sampling_grid(affine.to(prepared[0].dtype), self.glimpse_size, self.align_corners)
        return F.grid_sample(prepared[0], grid, "bilinear", "zeros", self.align_corners)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, align_corners={self.align_corners}"


class MipmapGlimpses(GlimpseGenerator):
    """Anti-aliased sampling from a pyramid: each level is the 2 x 2 mean of the one before.

    A window whose pixels are r image pixels apart (r = s H / g) is sampled at level log2 r, blended linearly between
    the two levels around it; for r <= 1 that is the image itself, sampled bilinearly. Coordinates are pixel edges
    (``align_corners=False``), so that levels do not shift against each other, and borders are extended.
    """

    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """The pyramid, down to the level at which the whole image fits the glimpse."""
        levels = [images]
        for _ in range(math.ceil(math.log2(max(1.0, images.shape[-1] / self.glimpse_size)))):
            odd = levels[-1].shape[-1] % 2
            even = F.pad(levels[-1], (0, odd, 0, odd), mode="replicate") if odd else levels[-1]
            levels.append(F.avg_pool2d(even, 2))
        return levels

    def sample(self, prepared: Prepared, affine: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """See :class:`GlimpseGenerator`."""
        affine = affine.to(prepared[0].dtype)
        grid = sampling_grid(affine, self.glimpse_size, align_corners=False)
        spacing = affine[:, 0] * (prepared[0].shape[-1] / self.glimpse_size)
        level = spacing.clamp(min=1).log2().clamp(max=len(prepared) - 1)
        glimpse = torch.zeros((), dtype=affine.dtype, device=affine.device)
        for index, image in enumerate(prepared):
            weight = (1 - (level - index).abs()).clamp(min=0)
            # A level made from an odd side reaches beyond the image's right and lower edge by a part of a pixel.
            share = prepared[0].shape[-1] / (image.shape[-1] * 2**index)
            sampled = F.grid_sample(image, (grid + 1) * share - 1, "bilinear", "border", False)
            glimpse = glimpse + weight[:, None, None, None] * sampled
        return glimpse

"""Glimpse generators: differentiable crops of a window to g x g pixels.

    glimpse(i, j) = image(tx + s u_i, ty + s u_j),   u the glimpse's own pixel positions in [-1, 1]

A generator is used in two moves: ``prepare`` once per image, then ``generator(prepared, window)`` once per glimpse.

Sources: spatial transformers (Jaderberg et al. 2015) for the crop that is differentiable in (s, tx, ty); pyramids with
trilinear blending (Williams 1983, "Pyramidal parametrics") for the anti-aliased one; Jiang et al. (ICCV 2019,
"Linearized Multi-Sampling for Differentiable Image Transformation") for the one with the far-sighted gradient.
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
    window: Float[Tensor, "batch 3"], glimpse_size: int, align_corners: bool
) -> Float[Tensor, "batch size size 2"]:
    """Where each pixel of the glimpse lies in the image, as (x, y) for ``grid_sample``.

    With ``align_corners`` the outermost positions are the window's ends (MGNet), else the centres of the glimpse's
    pixels, which tile the window.
    """
    # F.affine_grid computes the same in 2 to 15 times the time: it allows rotation, without which x and y separate.
    extent = 1.0 if align_corners else 1 - 1 / glimpse_size
    ticks = torch.linspace(-extent, extent, glimpse_size, dtype=window.dtype, device=window.device)
    x, y = (window[:, 1:, None] + window[:, :1, None] * ticks).unbind(1)
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
    def sample(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """The glimpses, in the precision of ``window``."""

    def forward(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """One glimpse of each image, differentiable in ``window`` and in the image."""
        # Lower precision would move windows by whole pixels: coordinates stay out of autocast.
        with torch.autocast(prepared[0].device.type, enabled=False):
            return self.sample(prepared, window)

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

    def sample(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """See :class:`GlimpseGenerator`."""
        grid = sampling_grid(window.to(prepared[0].dtype), self.glimpse_size, self.align_corners)
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

    def sample(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """See :class:`GlimpseGenerator`."""
        window = window.to(prepared[0].dtype)
        grid = sampling_grid(window, self.glimpse_size, align_corners=False)
        spacing = window[:, 0] * (prepared[0].shape[-1] / self.glimpse_size)
        level = spacing.clamp(min=1).log2().clamp(max=len(prepared) - 1)
        glimpse = torch.zeros((), dtype=window.dtype, device=window.device)
        may_skip = window.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        for index, image in enumerate(prepared):
            weight = (1 - (level - index).abs()).clamp(min=0)
            if may_skip and len(weight) and not weight.any():
                continue  # no window needs this level; elsewhere, asking would cost more than sampling
            # A level made from an odd side reaches beyond the image's right and lower edge by a part of a pixel.
            share = prepared[0].shape[-1] / (image.shape[-1] * 2**index)
            sampled = F.grid_sample(image, (grid + 1) * share - 1, "bilinear", "border", False)
            glimpse = glimpse + weight[:, None, None, None] * sampled
        return glimpse


class LinearizedGlimpses(GlimpseGenerator):
    """Bilinear glimpses whose gradient looks further: linearized multi-sampling (Jiang et al. 2019).

        forward:    image(p), as :class:`BilinearGlimpses` with ``align_corners=False``
        backward:   d glimpse / dp = argmin_slope min_level sum_k (image(p + d_k) - level - slope . d_k)^2

    The bilinear gradient knows the pixels next to the position p only. Here it is that of the plane of best fit through
    samples around p, spread over the glimpse's neighbouring pixels: the further the window is zoomed out, the further
    they reach. The places d_k are a symmetric spiral turned by a fixed random angle for every pixel of the glimpse, so
    that equal inputs have equal gradients. Samples that would leave the image are mirrored at p; those that leave it
    still, with the window, have no say, and a plane that is not determined is level. The image's own gradient is the
    bilinear one.

    Args:
        glimpse_size: side of the glimpse in pixels.
        samples: K, how many samples around each position; even.
        spread: standard deviation of their places along x and y, in pixels of the glimpse.

    Raises:
        ValueError: for an odd number of samples, fewer than four, or a spread that is not positive.
    """

    pattern: Tensor

    def __init__(self, glimpse_size: int, samples: int = 8, spread: float = 1.0):
        super().__init__(glimpse_size)
        if samples < 4 or samples % 2 or not spread > 0:
            raise ValueError(
                f"needs an even number of samples, 4 or more, and a spread above 0; got {samples}, {spread}"
            )
        self.samples, self.spread = samples, spread
        self.register_buffer("pattern", spread * _spirals(samples, glimpse_size), persistent=False)

    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """Nothing to share but the images themselves."""
        return [images]

    def sample(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """See :class:`GlimpseGenerator`."""
        (image,) = prepared
        window = window.to(image.dtype)
        grid = sampling_grid(window, self.glimpse_size, align_corners=False)
        glimpse = F.grid_sample(image, grid.detach(), "bilinear", "zeros", False)
        if not (torch.is_grad_enabled() and window.requires_grad):
            return glimpse
        slope = self._slope(image.detach(), grid.detach(), spacing=window.detach()[:, 0] * (2 / self.glimpse_size))
        return glimpse + (slope * (grid - grid.detach())[:, None]).sum(-1)

    @torch.no_grad()
    def _slope(
        self,
        image: Float[Tensor, "batch channel size size"],
        grid: Float[Tensor, "batch g g 2"],
        spacing: Float[Tensor, "batch"],
    ) -> Float[Tensor, "batch channel g g 2"]:
        """Of the planes of best fit, in x and y; their normal equations are 2 x 2 once centred."""
        spacing, edge = spacing[:, None, None, None, None], 1 - 1 / image.shape[-1]
        place = self.pattern.to(image.dtype)
        place = torch.where((grid[:, None] + spacing * place).abs() > edge, -place, place)
        points = grid[:, None] + spacing * place
        values = F.grid_sample(image, points.flatten(1, 2), "bilinear", "zeros", False).unflatten(2, place.shape[1:3])
        weight = (points.abs().amax(-1, keepdim=True) <= edge).to(image.dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
        centred = place - (weight * place).sum(1, keepdim=True)
        xx, yy = (weight * centred.square()).sum(1).unbind(-1)
        xy = (weight * centred.prod(-1, keepdim=True)).sum(1).squeeze(-1)
        x, y = torch.einsum("bkijp,bckij->pbcij", weight * centred, values)
        determinant = xx * yy - xy.square()
        determined = determinant > 1e-4 * self.spread**4
        inverse = torch.where(determined, 1 / determinant.where(determined, 1), 0)[:, None]
        xx, yy, xy = xx[:, None], yy[:, None], xy[:, None]
        return torch.stack([yy * x - xy * y, xx * y - xy * x], -1) * inverse[..., None] / spacing

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, samples={self.samples}, spread={self.spread:g}"


def _spirals(samples: int, glimpse_size: int) -> Float[Tensor, "sample g g 2"]:
    """Places (x, y) that fill a disc evenly, variance 1 along each axis, each with its opposite."""
    half = samples // 2
    turn = torch.rand(glimpse_size, glimpse_size, generator=torch.Generator().manual_seed(0))
    order = torch.arange(half).view(-1, 1, 1)
    angle, radius = math.pi * (order + turn) / half, 2 * ((order + 0.5) / half).sqrt()
    places = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return torch.cat([places, -places])

"""Glimpse generators: differentiable crops of a window to g x g pixels.

    glimpse(i, j) = image(tx + s u_i, ty + s u_j),   u the glimpse's own pixel positions in [-1, 1]

A generator works in two steps: ``prepare`` once per image, then ``generator(prepared, window)`` once per glimpse.

Sources: spatial transformers (Jaderberg et al. 2015) for crops differentiable in (s, tx, ty); pyramids with
trilinear blending (Williams 1983, "Pyramidal parametrics") for anti-aliasing; Jiang et al. (ICCV 2019,
"Linearized Multi-Sampling for Differentiable Image Transformation") for the gradient of longer range.
"""

import abc
import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Prepared = list[Tensor]
"""What ``prepare`` returns: the images, then any levels of a pyramid, each ``[batch, channel, size, size]``."""


def sampling_grid(
    window: Float[Tensor, "batch 3"], glimpse_size: int, align_corners: bool
) -> Float[Tensor, "batch size size 2"]:
    """Where each pixel of the glimpse lies in the image, as (x, y) for ``grid_sample``.

    With ``align_corners`` the outermost positions are the window's ends (MGNet), else the centres of the glimpse's
    pixels, which tile the window.
    """
    # F.affine_grid takes 2 to 15 times as long for the same result: it allows rotation, without which x and y separate.
    extent = 1.0 if align_corners else 1 - 1 / glimpse_size
    ticks = torch.linspace(-extent, extent, glimpse_size, dtype=window.dtype, device=window.device)
    x, y = (window[:, 1:, None] + window[:, :1, None] * ticks).unbind(1)
    return torch.stack([x[:, None, :].expand(-1, glimpse_size, -1), y[:, :, None].expand(-1, -1, glimpse_size)], -1)


class GlimpseGenerator(nn.Module, abc.ABC):
    """Crops the window (s, tx, ty) and resamples it to ``glimpse_size`` x ``glimpse_size`` pixels."""

    def __init__(self, glimpse_size: int):
        super().__init__()
        self.glimpse_size = glimpse_size

    @abc.abstractmethod
    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """Compute once what all glimpses of the images share."""

    @abc.abstractmethod
    def sample(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """The glimpses, in the precision of ``window``."""

    def forward(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """One glimpse of each image, differentiable in ``window`` and in the image."""
        # Lower precision would shift windows by whole pixels: coordinates stay out of autocast.
        with torch.autocast(prepared[0].device.type, enabled=False):
            return self.sample(prepared, window)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"glimpse_size={self.glimpse_size}"


class BilinearGlimpses(GlimpseGenerator):
    """Bilinear sampling with zeros outside and no low-pass filter; ``align_corners=True`` is exactly MGNet's.

    A window with more pixels than the glimpse skips some of them: it aliases.
    """

    def __init__(self, glimpse_size: int, align_corners: bool = False):
        super().__init__(glimpse_size)
        self.align_corners = align_corners

    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """The images; there is nothing else to share."""
        return [images]

    def sample(self, prepared: Prepared, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch channel g g"]:
        """See :class:`GlimpseGenerator`."""
        grid = sampling_grid(window.to(prepared[0].dtype), self.glimpse_size, self.align_corners)
        return F.grid_sample(prepared[0], grid, "bilinear", "zeros", self.align_corners)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{super().extra_repr()}, align_corners={self.align_corners}"


class MipmapGlimpses(GlimpseGenerator):
    """Anti-aliased sampling from a pyramid: each level is the 2 x 2 mean of the previous one.

    A window whose pixels are r image pixels apart (r = s H / g) is sampled at level log2 r, blended linearly between
    the two levels around it; for r <= 1 that is the image itself, sampled bilinearly. Coordinates are pixel edges
    (``align_corners=False``), so that levels stay aligned, and borders are extended.
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
                continue  # no window needs this level; on other devices the check costs more than sampling
            # A level made from an odd side extends a fraction of a pixel beyond the right and lower edge.
            share = prepared[0].shape[-1] / (image.shape[-1] * 2**index)
            sampled = F.grid_sample(image, (grid + 1) * share - 1, "bilinear", "border", False)
            glimpse = glimpse + weight[:, None, None, None] * sampled
        return glimpse


class LinearizedGlimpses(GlimpseGenerator):
    """Bilinear glimpses with a gradient of longer range: linearized multi-sampling (Jiang et al. 2019).

        forward:    image(p), as :class:`BilinearGlimpses` with ``align_corners=False``
        backward:   d glimpse / dp = argmin_slope min_level sum_k (image(p + d_k) - level - slope . d_k)^2

    The bilinear gradient depends only on the pixels next to the position p. This one is the slope of the plane of best
    fit through samples around p, spread over the neighbouring pixels of the glimpse: the larger the window, the further
    they reach. The offsets d_k form a symmetric spiral, turned by a fixed random angle for each glimpse pixel, so equal
    inputs have equal gradients. Samples outside the image are mirrored at p; those still outside are ignored, and
    an undetermined plane is level. The gradient with respect to the image is the bilinear one.

    Args:
        glimpse_size: side of the glimpse in pixels.
        samples: K, number of samples around each position; even.
        spread: standard deviation of their offsets along x and y, in pixels of the glimpse.

    Raises:
        ValueError: for an odd number of samples, fewer than four, or a spread that is not positive.
    """

    pattern: Tensor

    def __init__(self, glimpse_size: int, samples: int = 8, spread: float = 1.0):
        super().__init__(glimpse_size)
        if samples < 4 or samples % 2 or not spread > 0:
            raise ValueError(f"samples must be even and 4 or more, spread above 0; got {samples}, {spread}")
        self.samples, self.spread = samples, spread
        self.register_buffer("pattern", spread * _spirals(samples, glimpse_size), persistent=False)

    def prepare(self, images: Float[Tensor, "batch channel size size"]) -> Prepared:
        """The images; there is nothing else to share."""
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
        """Slopes of the planes of best fit, in x and y; once centred, their normal equations are 2 x 2."""
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
    """Points (x, y) that fill a disc evenly, variance 1 along each axis, each with its opposite."""
    half = samples // 2
    turn = torch.rand(glimpse_size, glimpse_size, generator=torch.Generator().manual_seed(0))
    order = torch.arange(half).view(-1, 1, 1)
    angle, radius = math.pi * (order + turn) / half, 2 * ((order + 0.5) / half).sqrt()
    places = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    return torch.cat([places, -places])

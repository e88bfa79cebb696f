"""Where to look next: the interface of all policies, and those that do not learn.

    a_1 = (1, 0, 0),   a_t = policy(state after t - 1 steps)

Looking nowhere ("none") needs no policy: it is a model run with ``num_glimpses=1``.
"""

import abc
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet import geometry
from glimpsenet.models.distributions import WindowDistribution, squash_to_window
from glimpsenet.models.state import GlimpseState

ScaleRange = tuple[float, float]
"""Smallest and largest scale s, 0 < s_min <= s_max <= 1."""


class Policy(nn.Module, abc.ABC):
    """Chooses the next window of each image from what was seen; the first is the whole image.

    What an objective, or a tool, may expect of it beside windows stands in its attributes.
    """

    stochastic: bool = False
    """It draws windows while it trains, and :meth:`distribution` tells from what."""
    scores_windows: bool = False
    """Its distribution has a score of each window."""
    differentiable: bool = True
    """Gradients pass from its windows into its parameters."""
    gradient_factor: float | None = None
    """What gradients into it are multiplied by; None if they pass as they are."""
    stop_gradient: bool = False
    """Learning where to look leaves the features alone."""

    @abc.abstractmethod
    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """Affine parameters of step ``state.glimpse``, 2 or later."""

    def forward(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """Affine parameters of step ``state.glimpse``."""
        return geometry.first_look(state.images) if state.glimpse == 1 else self.look(state)

    def distribution(self, state: GlimpseState) -> WindowDistribution:
        """What window ``state.glimpse`` is drawn from; differentiable in the policy's parameters.

        Raises:
            TypeError: unless the policy is stochastic.
        """
        raise TypeError(f"{type(self).__name__} draws no windows: it has no distribution")


class StochasticPolicy(Policy):
    """A policy that draws its windows while it trains and takes the likeliest otherwise."""

    stochastic = True

    @abc.abstractmethod
    def distribution(self, state: GlimpseState) -> WindowDistribution:
        """See :class:`Policy`."""

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        distribution = self.distribution(state)
        return distribution.sample() if self.training else distribution.mode()


class DiverseGlimpses(Policy):
    """A share of the windows drawn at random, the others from ``policy``: exploration for training.

    Random windows show the classifier what a young policy never would, and so give later rewards their meaning.

    Args:
        policy: chooses the others.
        share: 0..1, of windows that are random; may be changed between batches.
        scale_range: of random windows, where the policy has no distribution of its own to explore.
        pathwise: let gradients pass from the windows into the policy.
        greedy: take the likeliest of the policy's windows, not a draw.
    """

    def __init__(
        self, policy: Policy, share: float, scale_range: ScaleRange, *, pathwise: bool = False, greedy: bool = False
    ):
        super().__init__()
        self.policy, self.share, self.scale_range = policy, share, scale_range
        self.pathwise, self.greedy = pathwise, greedy

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        with torch.set_grad_enabled(self.pathwise and torch.is_grad_enabled()):
            if self.policy.stochastic:
                distribution = self.policy.distribution(state)
                chosen = distribution.mode() if self.greedy else distribution.sample()
                explored = distribution.explore()
            else:
                chosen = self.policy(state)
                explored = squash_to_window(torch.rand_like(chosen), self.scale_range)
            at_random = torch.rand(len(chosen), 1, device=chosen.device) < self.share
            return torch.where(at_random, explored, chosen)


class LargerGlimpses(Policy):
    """The windows of ``policy``, enlarged part of the way to the largest scale: a curriculum from large to small.

    Args:
        policy: chooses them.
        amount: 0 leaves them, 1 makes all as large as can be.
        scale_range: smallest and largest s.
    """

    def __init__(self, policy: Policy, amount: float, scale_range: ScaleRange):
        super().__init__()
        self.policy, self.amount, self.largest = policy, amount, scale_range[1]

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        scale, centre = self.policy(state).split([1, 2], -1)
        return geometry.move_inside(torch.cat([scale + self.amount * (self.largest - scale), centre], -1))


class RandomGlimpses(Policy):
    """s uniform in the range, the centre uniform over what keeps the window inside.

    Draws come from a generator of its own on the CPU: the same on every device, and no other random number moves.
    """

    def __init__(self, scale_range: ScaleRange, seed: int = 0):
        super().__init__()
        self.scale_range = scale_range
        self.generator: torch.Generator = torch.Generator().manual_seed(seed)

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        uniform = torch.rand(len(state.images), 3, generator=self.generator)
        return squash_to_window(uniform, self.scale_range).to(state.images.device)


class CenterGlimpses(Policy):
    """The centre of the image at native resolution: s = g / H, clipped to the range."""

    def __init__(self, scale_range: ScaleRange, glimpse_size: int):
        super().__init__()
        self.scale_range = scale_range
        self.glimpse_size = glimpse_size

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        smallest, largest = self.scale_range
        affine = torch.zeros_like(geometry.first_look(state.images))
        affine[:, 0] = min(max(self.glimpse_size / state.images.shape[-1], smallest), largest)
        return affine


class OracleGlimpses(Policy):
    """The true place: the box's centre, s = 1.25 times half its longer side clipped to the range, moved inside.

    Where the box is NaN (unknown) it looks at the centre with the largest scale.
    """

    def __init__(self, scale_range: ScaleRange, boxes: Float[Tensor, "batch 4"]):
        super().__init__()
        self.scale_range = scale_range
        self.boxes = boxes

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        smallest, largest = self.scale_range
        affine = geometry.box_to_affine(self.boxes.to(state.images.device, torch.float32), state.images.shape[-1])
        affine = torch.where(affine.isnan(), affine.new_tensor([largest, 0.0, 0.0]), affine)
        scale = (1.25 * affine[:, :1]).clamp(smallest, largest)
        return geometry.move_inside(torch.cat([scale, affine[:, 1:]], -1))


class FixedGlimpses(Policy):
    """Injects chosen windows at chosen steps; ``otherwise`` chooses the rest, after it has seen them.

    Args:
        windows: step (1 is the first look) -> affine parameters, one triple or one a sample ``[batch, 3]``.
        otherwise: the policy of the other steps.

    Raises:
        ValueError: for a step below 1.
    """

    def __init__(self, windows: Mapping[int, Tensor | tuple[float, float, float]], otherwise: Policy):
        super().__init__()
        if any(step < 1 for step in windows):
            raise ValueError(f"steps count from 1, the first look; got {min(windows)}")
        self.windows: dict[int, Tensor] = {
            step: window if isinstance(window, Tensor) else torch.tensor(window, dtype=torch.float32)
            for step, window in windows.items()
        }
        self.otherwise = otherwise

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        if state.glimpse not in self.windows:
            return self.otherwise(state)
        return self.windows[state.glimpse].to(state.images.device).expand(len(state.images), 3)

    def forward(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """Any step may be injected, the first look too."""
        return self.look(state)

"""Policies for training: a policy with some windows replaced by random ones, or with larger windows at first."""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.distributions import squash_to_window


class DiverseGlimpses(Policy):
    """Draws a share of the windows at random and takes the others from ``policy``: exploration for training.

    Random windows show the classifier what an untrained policy never would, so later rewards become meaningful.

    Args:
        policy: chooses the other windows.
        share: share of random windows, 0..1; may change between batches.
        scale_range: smallest and largest s of random windows, if the policy has no distribution to explore.
        pathwise: let gradients pass from the windows into the policy.
        greedy: take the policy's likeliest window instead of sampling.
    """

    def __init__(
        self, policy: Policy, share: float, scale_range: ScaleRange, *, pathwise: bool = False, greedy: bool = False
    ):
        super().__init__()
        self.policy, self.share, self.scale_range = policy, share, scale_range
        self.pathwise, self.greedy = pathwise, greedy

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
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
        policy: chooses the windows.
        amount: 0 leaves them unchanged, 1 enlarges all to the largest scale.
        scale_range: smallest and largest s.
    """

    def __init__(self, policy: Policy, amount: float, scale_range: ScaleRange):
        super().__init__()
        self.policy, self.amount, self.largest = policy, amount, scale_range[1]

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        scale, centre = self.policy(state).split([1, 2], -1)
        return geometry.move_inside(torch.cat([scale + self.amount * (self.largest - scale), centre], -1))

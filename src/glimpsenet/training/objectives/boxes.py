"""Boxes: the policy is told where the evidence is ("GlimpseNet", 2017)."""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy
from glimpsenet.policies.baselines import OracleGlimpses
from glimpsenet.training.objectives.base import Objective


class BoxSupervision(Objective):
    """The likelihood of the oracle's window, or, without probabilities, the distance to it.

    Images without a known box do not count; a window that the policy may not choose again costs nothing.
    """

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`~glimpsenet.training.objectives.base.Objective`."""
        known = boxes.isfinite().all(1)
        losses = []
        for glimpse in range(2, output.state.glimpse):
            before = output.state.before(glimpse)
            losses.append(distance_to(OracleGlimpses(self.scale_range, boxes).choose(before), model.policy, before))
        loss = torch.stack(losses, 1)
        return (loss * known[:, None]).sum() / (known.sum() * loss.shape[1]).clamp(min=1)


def distance_to(wanted: Float[Tensor, "batch 3"], policy: Policy, state: GlimpseState) -> Float[Tensor, "batch"]:
    """How far what a policy chooses is from what it should; 0 for a window that it may not choose.

    Of such a window the likelihood is no lesson: its gradient pushes down the scores of all that are allowed.
    """
    if policy.stochastic:
        distribution = policy.distribution(state)
        return -distribution.log_probability(wanted) * distribution.may_choose(wanted)
    return (policy(state) - wanted).square().sum(1)

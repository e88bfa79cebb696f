"""Pathwise: the policy learns from the classification loss, through its windows (MGNet, the report)."""

from torch import Tensor

from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.exploration import LargerGlimpses
from glimpsenet.training.objectives.base import Objective
from glimpsenet.training.penalties import overlap_penalty, scale_penalty


class Pathwise(Objective):
    """The classification loss itself; of its own are only penalties on windows, and a curriculum.

    Gradients of the penalties, too, are multiplied by the policy's gradient factor on their way back.

    Args:
        scale_range: smallest and largest s.
        scale_weight: of :func:`~glimpsenet.training.penalties.scale_penalty`.
        overlap_weight: of :func:`~glimpsenet.training.penalties.overlap_penalty`.
        large_until: share of the schedule over which windows shrink from the largest scale to those chosen.
        gradient_share: see :class:`~glimpsenet.training.objectives.base.Objective`.
    """

    pathwise = True

    def __init__(
        self,
        scale_range: ScaleRange,
        scale_weight: float = 0.0,
        overlap_weight: float = 0.0,
        *,
        large_until: float = 0.0,
        gradient_share: float | None = None,
    ):
        super().__init__(scale_range)
        self.scale_weight, self.overlap_weight = scale_weight, overlap_weight
        self.large_until, self.gradient_share = large_until, gradient_share

    def behaviour(
        self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor, progress: float = 0.0
    ) -> Policy:
        """The policy, its windows enlarged while the curriculum lasts."""
        policy = super().behaviour(model, share, labels, boxes, progress)
        if progress >= self.large_until:
            return policy
        return LargerGlimpses(policy, 1 - progress / self.large_until, self.scale_range)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`~glimpsenet.training.objectives.base.Objective`."""
        windows = output.windows
        return self.scale_weight * scale_penalty(windows) + self.overlap_weight * overlap_penalty(windows)

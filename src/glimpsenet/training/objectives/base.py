"""The interface of all objectives."""

import abc

from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.exploration import DiverseGlimpses


class Objective(nn.Module, abc.ABC):
    """What trains the policy beside the classification loss.

    Args:
        scale_range: smallest and largest s.
        weight: of its loss beside the classification loss.
    """

    pathwise: bool = False
    """Whether gradients of the classification loss reach the policy through its windows."""
    passes: int = 1
    """Optimiser steps on each batch; the loader repeats it."""
    gradient_share: float | None = None
    """What the norm of the policy's gradient shall be, as a share of all other weights'; None leaves it."""

    def __init__(self, scale_range: ScaleRange, *, weight: float = 1.0):
        super().__init__()
        self.scale_range: ScaleRange = scale_range
        self.weight: float = weight

    def behaviour(
        self,
        model: GlimpseNet,
        share: float,
        labels: Int[Tensor, "batch"],
        boxes: Float[Tensor, "batch 4"],
        progress: float = 0.0,
    ) -> Policy:
        """The policy that chooses windows while training.

        Args:
            model: whose policy learns.
            share: of windows that are to be random.
            labels: true classes.
            boxes: where the evidence is.
            progress: share of the schedule that is over, 0..1.
        """
        return DiverseGlimpses(model.policy, share, self.scale_range, pathwise=self.pathwise)

    def examined(self, boxes: Float[Tensor, "batch 4"]) -> Policy | None:
        """The policy in validation, which chooses the checkpoint; the model's own if None.

        Args:
            boxes: where the evidence is.
        """
        return None

    @abc.abstractmethod
    def forward(
        self,
        model: GlimpseNet,
        output: GlimpseOutput,
        labels: Int[Tensor, "batch"],
        boxes: Float[Tensor, "batch 4"],
    ) -> Float[Tensor, ""]:
        """The loss of one batch, not weighted.

        Args:
            model: whose policy learns.
            output: of the batch, windows chosen by the policy or at random.
            labels: true classes.
            boxes: where the evidence is, in pixels; NaN where unknown.
        """

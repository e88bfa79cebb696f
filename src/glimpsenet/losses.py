"""The paper's loss.

    L = (1 - alpha) mean_{t=1..T} CE(logits_t, y)  +  alpha mean_{t=2..T} CE(aux_t, y)

alpha is 0.6 in the report's recipe and counts as 0 for T = 1 and without auxiliary classifier; evaluation has no
auxiliary part. Source: Tan et al. 2021; Supeene & Wang, section 4.1.1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from glimpsenet.models.glimpsenet import GlimpseOutput
from glimpsenet.precision import at_least_float32


class GlimpseLoss(NamedTuple):
    """The loss and its parts."""

    total: Float[Tensor, ""]
    per_glimpse: Float[Tensor, "glimpse"]
    """Mean cross-entropy of each glimpse's answer."""
    auxiliary: Float[Tensor, ""]
    """Mean cross-entropy of the auxiliary classifier; 0 without one."""


def glimpse_losses(
    logits: Float[Tensor, "batch glimpse class_"], labels: Int[Tensor, "batch"]
) -> Float[Tensor, "batch glimpse"]:
    """Cross-entropy of every glimpse's answer, in float32 at least."""
    logits = at_least_float32(logits)
    return F.cross_entropy(logits.transpose(1, 2), labels[:, None].expand(-1, logits.shape[1]), reduction="none")


def glimpse_loss(output: GlimpseOutput, labels: Int[Tensor, "batch"], auxiliary_weight: float) -> GlimpseLoss:
    """The training loss; ``auxiliary_weight`` is alpha."""
    per_glimpse = glimpse_losses(output.logits, labels).mean(0)
    if output.auxiliary_logits is None or output.auxiliary_logits.shape[1] == 0:
        return GlimpseLoss(per_glimpse.mean(), per_glimpse, torch.zeros_like(per_glimpse[0]))
    auxiliary = glimpse_losses(output.auxiliary_logits, labels).mean()
    total = (1 - auxiliary_weight) * per_glimpse.mean() + auxiliary_weight * auxiliary
    return GlimpseLoss(total, per_glimpse, auxiliary)

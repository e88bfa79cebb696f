"""Rewards: what each window was worth, one number a window of glimpses 2..T. Without gradient; the higher, the better.

    evidence      r_t = max(log p_aux(y | glimpse t), log 1/K)      what the window shows by itself; K classes
    likelihood    r_t = log p_aux(y | glimpse t)                    the same, where a window may be worse than none
    progress      r_t = CE(logits_{t-1}, y) - CE(logits_t, y)       by how much the answer's loss falls
    confidence    r_t = p_t(y) - p_{t-1}(y)                         by how much the true class's probability rises

``progress`` and ``confidence`` are those of GFNet (Wang et al. 2020) and AdaptiveNN (2025); they credit a window for
what others showed before it, and nothing is left to gain once the answer is right. ``evidence`` needs no other window.

The floor of ``evidence`` is what an empty window is worth. A classifier that cannot read yet is most confidently wrong
where there is most to read; without the floor a policy learns to look away from there first.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsenet.losses import glimpse_losses
from glimpsenet.models.glimpsenet import GlimpseOutput

Reward = Callable[[GlimpseOutput, Tensor], Tensor]
"""(output, labels ``[batch]``) -> ``[batch, later_glimpse]``."""


def evidence(output: GlimpseOutput, labels: Int[Tensor, "batch"]) -> Float[Tensor, "batch later_glimpse"]:
    """:func:`likelihood`, and never less than that of a guess among all classes.

    Raises:
        ValueError: if the model has no auxiliary classifier.
    """
    return likelihood(output, labels).clamp(min=-math.log(output.logits.shape[-1]))


@torch.no_grad()
def likelihood(output: GlimpseOutput, labels: Int[Tensor, "batch"]) -> Float[Tensor, "batch later_glimpse"]:
    """Log-likelihood of the true class by the auxiliary classifier, from each window alone.

    Raises:
        ValueError: if the model has no auxiliary classifier.
    """
    if output.auxiliary_logits is None:
        raise ValueError("this reward reads the auxiliary classifier: train with one, or choose another reward")
    return -glimpse_losses(output.auxiliary_logits, labels)


@torch.no_grad()
def progress(output: GlimpseOutput, labels: Int[Tensor, "batch"]) -> Float[Tensor, "batch later_glimpse"]:
    """Fall of the cross-entropy from glimpse to glimpse."""
    return -glimpse_losses(output.logits, labels).diff(dim=1)


@torch.no_grad()
def confidence(output: GlimpseOutput, labels: Int[Tensor, "batch"]) -> Float[Tensor, "batch later_glimpse"]:
    """Rise of the true class's probability from glimpse to glimpse."""
    return (-glimpse_losses(output.logits, labels)).exp().diff(dim=1)


REWARDS: dict[str, Reward] = {
    "evidence": evidence,
    "likelihood": likelihood,
    "progress": progress,
    "confidence": confidence,
}

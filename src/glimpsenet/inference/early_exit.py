"""Early exit: look until the answer is sure enough, and no further.

    exit = min { t : score(logits_t) > threshold, or t = T }
    confidence: score = max_k p_k      margin: score = p_(1) - p_(2)      p = softmax(logits_t)

Images that are done leave the batch, so that time falls with the number of looks. ``exit_curve.py`` finds the
threshold for a wanted accuracy or cost.

Sources: thresholds on confidence as in MSDNet (Huang et al. 2018) and, for glimpses, GFNet (Wang et al. 2020).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from glimpsenet.errors import SettingError
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy

Score = Literal["confidence", "margin"]


@dataclass(frozen=True)
class ExitRule:
    """When an answer is sure enough.

    Example:
        >>> glimpsenet.ExitRule(0.9)  # stop once a class is more probable than 0.9
        ExitRule(threshold=0.9, score='confidence')
    """

    threshold: float
    """Stop when the score is greater: 1 never stops early, 0 stops at once."""
    score: Score = "confidence"
    """The greatest probability, or its distance from the second greatest."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise SettingError(f"an exit threshold is a probability, 0 to 1; got {self.threshold:g}")


NEVER = ExitRule(1.0)
"""Always look T times."""


def exit_scores(logits: Float[Tensor, "*batch class_"], score: Score) -> Float[Tensor, "*batch"]:
    """How sure the answers are, 0..1."""
    probabilities = logits.float().softmax(-1)
    if score == "confidence":
        return probabilities.amax(-1)
    first, *second = probabilities.topk(min(2, logits.shape[-1]), -1).values.unbind(-1)
    return first - second[0] if second else first


@dataclass(frozen=True)
class ExitOutput:
    """What the model thought and where it looked, until it stopped."""

    logits: Float[Tensor, "batch class_"]
    """The answer at each image's exit."""
    num_glimpses: Int[Tensor, "batch"]
    """Glimpses taken until the exit, 1..T."""
    glimpse_logits: Float[Tensor, "batch glimpse class_"]
    """The answer after each glimpse; NaN after the exit."""
    windows: Float[Tensor, "batch glimpse 3"]
    """The windows (s, tx, ty); NaN after the exit."""


class Predictor:
    """Runs a model glimpse by glimpse; with a rule, each image only as long as it must.

    Args:
        model: put into evaluation mode; :func:`~glimpsenet.inference.fast.accelerate` makes it faster.
        rule: when to stop.

    Example:
        >>> model = glimpsenet.accelerate(glimpsenet.load("runs/digits"))
        >>> predictor = glimpsenet.Predictor(model, glimpsenet.ExitRule(0.9))
        >>> output = predictor(torch.rand(2, 1, 80, 80))  # uint8 or 0..1, not normalised
        >>> output.logits.shape, output.num_glimpses.shape
        (torch.Size([2, 10]), torch.Size([2]))
    """

    def __init__(self, model: GlimpseNet, rule: ExitRule = NEVER):
        self.model: GlimpseNet = model.eval()
        self.rule = rule

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, policy: Policy | None = None, num_glimpses: int | None = None) -> ExitOutput:
        """Look and classify.

        Args:
            images: ``[batch, channel, size, size]``, uint8 or 0..1, not normalised, on the model's device.
            policy: looks in place of the model's own; with a rule it must not know images by their place in the batch.
            num_glimpses: T, if not the model's own.
        """
        num_glimpses = num_glimpses or self.model.num_glimpses
        state = self.model.start(self.model.normalization(images))
        exits = _Exits(state.images, self.model.num_classes, num_glimpses, self.rule)
        self.model.look(state, policy=policy, num_glimpses=num_glimpses, after=exits)
        return exits.output()


class _Exits:
    """Keeps the answers of a batch, and lets the loop continue with the images that are not done."""

    def __init__(self, images: Tensor, num_classes: int, num_glimpses: int, rule: ExitRule):
        self.rule, self.last = rule, num_glimpses
        shape = (len(images), num_glimpses)
        self.logits, self.windows = (images.new_full((*shape, n), torch.nan) for n in (num_classes, 3))
        self.rows = torch.arange(len(images), device=images.device)
        self.taken = torch.zeros_like(self.rows)

    def __call__(self, state: GlimpseState) -> GlimpseState | None:
        taken, answer = len(state.windows), state.logits[-1]
        self.logits[self.rows, taken - 1] = answer.to(self.logits.dtype)
        self.windows[self.rows, taken - 1] = state.windows[-1].to(self.windows.dtype)
        self.taken[self.rows] = taken
        if self.rule.threshold >= 1 or taken == self.last:
            return state
        left = (exit_scores(answer, self.rule.score) <= self.rule.threshold).nonzero()[:, 0]
        if len(left) == len(self.rows):
            return state
        self.rows = self.rows[left]
        return state.select(left) if len(left) else None

    def output(self) -> ExitOutput:
        last = (self.taken - 1)[:, None, None].expand(-1, 1, self.logits.shape[-1])
        return ExitOutput(self.logits.gather(1, last)[:, 0], self.taken, self.logits, self.windows)

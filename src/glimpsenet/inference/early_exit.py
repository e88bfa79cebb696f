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
from glimpsenet.models.backbone import Features
from glimpsenet.models.fusion import Memory
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.models.policies import Policy
from glimpsenet.models.state import GlimpseState

Score = Literal["confidence", "margin"]


@dataclass(frozen=True)
class ExitRule:
    """When an answer is sure enough."""

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
    looks: Int[Tensor, "batch"]
    """The step of the exit, 1..T."""
    step_logits: Float[Tensor, "batch step class_"]
    """The answer after each step; NaN after the exit."""
    affine: Float[Tensor, "batch step 3"]
    """The windows (s, tx, ty); NaN after the exit."""


class Predictor:
    """Runs a model step by step; with a rule, each image only as long as it must.

    Args:
        model: put into evaluation mode; :func:`~glimpsenet.inference.fast.accelerate` makes it faster.
        rule: when to stop.

    Example:
        >>> predictor = Predictor(accelerate(model), ExitRule(0.9))
        >>> output = predictor(images)  # uint8 or 0..1, not normalised
    """

    def __init__(self, model: GlimpseNet, rule: ExitRule = NEVER):
        self.model: GlimpseNet = model.eval()
        self.rule = rule

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, policy: Policy | None = None) -> ExitOutput:
        """Look and classify.

        Args:
            images: ``[batch, channel, size, size]``, uint8 or 0..1, not normalised, on the model's device.
            policy: looks in place of the model's own; with a rule it must not know images by their place in the batch.
        """
        model = self.model
        state = GlimpseState(model.normalization(images))
        model.check_images(state.images)
        prepared = model.generator.prepare(state.images)
        memory: Memory | None = None
        shape = (len(images), model.num_glimpses)
        logits, affine = (state.images.new_full((*shape, width), torch.nan) for width in (model.num_classes, 3))
        rows = torch.arange(len(images), device=images.device)
        looks = torch.zeros_like(rows)
        for step in range(1, model.num_glimpses + 1):
            answer, memory = model.step(prepared, state, memory, policy)
            logits[rows, step - 1], affine[rows, step - 1] = answer.to(logits.dtype), state.affine[-1]
            looks[rows] = step
            if self.rule.threshold >= 1 or step == model.num_glimpses:
                continue
            left = (exit_scores(answer, self.rule.score) <= self.rule.threshold).nonzero()[:, 0]
            if len(left) == 0:
                break
            if len(left) < len(rows):
                rows, prepared = rows[left], [level[left] for level in prepared]
                state, memory = _only(left, state, prepared[0]), memory and (memory[0][left], memory[1][left])
        last = (looks - 1)[:, None, None].expand(-1, 1, model.num_classes)
        return ExitOutput(logits.gather(1, last)[:, 0], looks, logits, affine)


def _only(rows: Tensor, state: GlimpseState, images: Tensor) -> GlimpseState:
    """What was seen of some images of the batch."""
    return GlimpseState(
        images,
        [window[rows] for window in state.affine],
        [Features(seen.pooled[rows], [layer[rows] for layer in seen.maps]) for seen in state.features],
        [fused[rows] for fused in state.fused],
    )

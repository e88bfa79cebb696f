"""What every exit threshold would do, simulated on held-out images; and the threshold for a wanted accuracy or cost.

    cost(threshold) = sum_t P(exit = t) cost_t,      cost_t: looks, FLOPs or milliseconds up to glimpse t

One full pass over the images is enough, since an early exit changes no answer before it. As in MSDNet (Huang et al.
2018), thresholds are calibrated on images that neither trained the model nor measure it afterwards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from glimpsenet.data.sample import Batch
from glimpsenet.errors import MissingError, UserError
from glimpsenet.inference.early_exit import ExitRule, Score, exit_scores
from glimpsenet.models.glimpsenet import GlimpseNet

POINTS = 400
"""Thresholds tried: at equal shares of the scores that occurred."""
QUANTILE = 1.645
"""Of the normal distribution: one case in twenty lies above."""


@dataclass(frozen=True)
class ExitCurve:
    """One entry a threshold, from the laxest (0: stop at once) to the strictest (1: never)."""

    score: Score
    thresholds: Float[Tensor, "n"]
    accuracy: Float[Tensor, "n"]
    """0..1."""
    fall: Float[Tensor, "n"]
    """Accuracy of all looks less this accuracy, at worst: the upper end of a one-sided 95% interval over images."""
    exits: Float[Tensor, "n glimpse"]
    """Share of the images that stop after each glimpse."""

    def cost(self, per_glimpse: Sequence[float] | None = None) -> Float[Tensor, "n"]:
        """Mean cost of an image; ``per_glimpse`` is the cost up to each glimpse, 1, 2, ..., T looks if None."""
        glimpses = torch.arange(1.0, self.exits.shape[1] + 1) if per_glimpse is None else torch.tensor(per_glimpse)
        return self.exits.double() @ glimpses.double()

    def for_cost(self, wanted: float, per_glimpse: Sequence[float] | None = None) -> ExitRule:
        """The strictest rule that costs at most ``wanted`` on average.

        Raises:
            UserError: if even one look costs more.
        """
        cost = self.cost(per_glimpse)
        affordable = (cost <= wanted).nonzero()
        if len(affordable) == 0:
            raise UserError(f"no exit threshold costs {wanted:g} or less: one look costs {float(cost[0]):g}")
        return ExitRule(float(self.thresholds[affordable[-1, 0]]), self.score)

    def for_accuracy(self, wanted: float) -> ExitRule:
        """The laxest rule such that it, and every stricter one, had an accuracy of at least ``wanted`` (0..1).

        Raises:
            UserError: if not even all looks have.
        """
        rule = self._laxest(self.accuracy >= wanted)
        if rule is None:
            raise UserError(f"no exit threshold has accuracy {wanted:g}: all looks have {float(self.accuracy[-1]):g}")
        return rule

    def for_fall(self, allowed: float) -> ExitRule:
        """The laxest rule such that it, and every stricter one, falls by at most ``allowed`` (0..1) in 19 of 20 cases.

        "By at most" is meant of images like these, not only of these: few images make it strict.

        Raises:
            UserError: if ``allowed`` is negative.
        """
        rule = self._laxest(self.fall <= allowed)  # the strictest, all looks, does not fall
        if rule is None:
            raise UserError(f"accuracy cannot be kept from falling by {allowed:g}; allow 0 or more")
        return rule

    def _laxest(self, enough: Bool[Tensor, "n"]) -> ExitRule | None:
        """From which threshold on all are enough; None if the strictest is not."""
        failing = (~enough).nonzero()
        first = int(failing[-1, 0]) + 1 if len(failing) else 0
        return None if first == len(enough) else ExitRule(float(self.thresholds[first]), self.score)


def exit_curve(
    logits: Float[Tensor, "image glimpse class_"], labels: Int[Tensor, "image"], score: Score = "confidence"
) -> ExitCurve:
    """What every threshold would have done.

    Args:
        logits: of full passes over held-out images; see :func:`full_passes`.
        labels: true classes.
        score: what the threshold is compared with.
    """
    images, glimpses = logits.shape[:2]
    scores, right = exit_scores(logits, score), logits.argmax(-1) == labels[:, None]
    order = scores[:, :-1].flatten().sort().values
    tried = order[torch.linspace(0, len(order) - 1, POINTS).long()] if glimpses > 1 else order
    thresholds = torch.cat([torch.zeros(1), tried, torch.ones(1)]).unique()
    accuracy, fall, exits = [], [], []
    for threshold in thresholds:
        stops = scores > threshold
        stops[:, -1] = True
        exit_glimpse = stops.int().argmax(1)
        kept = right.gather(1, exit_glimpse[:, None])[:, 0].double()
        lost = right[:, -1].double() - kept  # paired: most images say nothing
        accuracy.append(kept.mean())
        fall.append(lost.mean() + QUANTILE * lost.std(correction=0) / images**0.5)
        exits.append(torch.bincount(exit_glimpse, minlength=glimpses) / images)
    return ExitCurve(score, thresholds, torch.stack(accuracy).float(), torch.stack(fall).float(), torch.stack(exits))


@torch.inference_mode()
def full_passes(
    model: GlimpseNet, batches: Iterable[Batch]
) -> tuple[Float[Tensor, "image glimpse class_"], Int[Tensor, "image"]]:
    """Logits of every glimpse, and labels, of all readable images; on the CPU.

    Raises:
        UserError: if there is none.
    """
    device = model.classifier.weight.device
    logits, labels = [], []
    model.eval()
    for batch in batches:
        if len(batch.images):
            logits.append(model(model.normalization(batch.images.to(device))).logits.float().cpu())
            labels.append(batch.labels)
    if not logits:
        raise MissingError("no readable image to calibrate an exit threshold on")
    return torch.cat(logits), torch.cat(labels)

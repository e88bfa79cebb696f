"""How sure a number from some hundred images is: 95% intervals, by SciPy.

Shares have Wilson's interval: it stays inside 0..1 and is right for shares near both, where accuracies under attack lie
(Wilson 1927; Brown, Cai & DasGupta 2001). Everything else has the percentiles of a bootstrap over images (Efron 1979).
Differences between two models on the same images are paired.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

RESAMPLES = 2000
"""Bootstrap samples an interval is made of."""

Interval = tuple[float, float]


def wilson_interval(right: int, images: int) -> Interval:
    """Of a share, ``right`` of ``images`` (1 or more)."""
    interval = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    groups: Sequence[Float[np.ndarray, "image"]], rng: np.random.Generator, statistic: Callable[..., Any] = np.mean
) -> Interval:
    """Of a statistic over all groups together; images are resampled within each group, for example each model.

    Args:
        groups: of 2 images or more each.
        rng: draws.
        statistic: takes an array and ``axis``.

    Raises:
        ValueError: for a smaller group.
    """

    def pooled(*resampled: np.ndarray, axis: int) -> np.ndarray:
        return statistic(np.concatenate(resampled, axis), axis=axis)

    interval = stats.bootstrap(groups, pooled, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    return float(interval.low), float(interval.high)


def accuracy_with_interval(right: Bool[Tensor, "image"]) -> dict[str, float | Interval]:
    """Accuracy and its interval, as results tell them."""
    count = int(right.sum())
    return {"accuracy": count / len(right), "interval": wilson_interval(count, len(right))}


def paired_difference(
    one: Sequence[Float[Tensor, "image"]], other: Sequence[Float[Tensor, "image"]], seed: int = 0
) -> dict[str, float | Interval]:
    """Mean difference of two models' shares on the same images, and its interval.

    Args:
        one: per condition (a corruption and severity, say), 1 where the first model is right.
        other: the same of the second.
        seed: of the resampling.
    """
    each = torch.stack([(a - b).double() for a, b in zip(one, other, strict=True)]).mean(0).cpu().numpy()
    # A single image says nothing of how much images differ: any difference is possible.
    interval = bootstrap_interval([each], np.random.default_rng(seed)) if len(each) > 1 else (-1.0, 1.0)
    return {"difference": float(each.mean()), "interval": interval}

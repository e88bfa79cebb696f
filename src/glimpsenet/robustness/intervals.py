"""How sure a share of some hundred images is.

    Wilson's interval:  (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n),     z = 1.96: 95%

It keeps inside 0..1 and is right for shares near both, where accuracies under attack lie (Wilson 1927; Brown, Cai &
DasGupta 2001). Differences between two models on the same images are paired: a bootstrap over images (Efron 1979).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Z95 = 1.959964
RESAMPLES = 2000

Interval = tuple[float, float]


def wilson_interval(right: int, images: int) -> Interval:
    """95% interval of a share, ``right`` of ``images`` (1 or more)."""
    share, spread = right / images, Z95**2 / images
    middle = share + spread / 2
    half = Z95 * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def accuracy_with_interval(right: Bool[Tensor, "image"]) -> dict[str, float | Interval]:
    """Accuracy and its 95% interval, as results tell them."""
    count = int(right.sum())
    return {"accuracy": count / len(right), "interval": wilson_interval(count, len(right))}


def paired_difference(
    one: Sequence[Float[Tensor, "image"]], other: Sequence[Float[Tensor, "image"]], seed: int = 0
) -> dict[str, float | Interval]:
    """Mean difference of two models' shares on the same images, and its 95% bootstrap interval.

    Args:
        one: per condition (a corruption and severity, say), 1 where the first model is right.
        other: the same of the second.
        seed: of the resampling.
    """
    each = torch.stack([(a - b).double() for a, b in zip(one, other, strict=True)]).mean(0)
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randint(len(each), (len(each),), generator=generator) for _ in range(RESAMPLES))
    means = torch.stack([each[places].mean() for places in draws])
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return {"difference": float(each.mean()), "interval": (low, high)}

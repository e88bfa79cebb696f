"""Penalties on windows, for policies that learn by the gradient through them.

    scale     mean_{t>1} s_t                                                   small windows show more
    overlap   mean_{1<t<u} area(W_t and W_u) / area(W_t or W_u)               few glimpses of one place

The gradient of the scale penalty is the same everywhere, 1 / (T - 1), and training by it makes windows small. That of
the overlap is zero where two windows do not touch, and zero in their centres where one lies inside the other: only
where borders cross are they driven apart, and a window can also escape by growing or shrinking. One network places all
windows, so that a step against the overlap can as well increase it: in training it falls on some seeds only
(``benchmarks/results/test-margins.json``, ``overlap-penalty``).

Source: MGNet's authors name both as ideas and publish no result (Tan et al. 2021).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet import geometry


def scale_penalty(windows: Float[Tensor, "batch glimpse 3"]) -> Float[Tensor, ""]:
    """Mean scale of all windows but the first glimpse, 0..1; 0 without windows."""
    return windows[:, 1:, 0].mean() if windows.shape[1] > 1 else windows.new_zeros(())


def overlap_penalty(windows: Float[Tensor, "batch glimpse 3"]) -> Float[Tensor, ""]:
    """Mean overlap of all pairs of windows, the first glimpse left out, 0..1; 0 for fewer than two windows."""
    later = windows[:, 1:]
    first, second = torch.triu_indices(later.shape[1], later.shape[1], 1, device=windows.device)
    return geometry.overlap(later[:, first], later[:, second]).mean() if len(first) else windows.new_zeros(())

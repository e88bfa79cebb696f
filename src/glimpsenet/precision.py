"""Where lower precision would do harm: coordinates and losses are computed in float32 at least."""

import torch
from jaxtyping import Float
from torch import Tensor


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

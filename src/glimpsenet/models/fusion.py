"""Feature fusion over the glimpses so far.

    o_t = ReLU(LayerNorm(Attention(query = h_t, keys = values = h_1..h_t)))

The report's fusion is self-attention over h_1..h_t, but only the output at the newest position is used. The queries of
other positions are not needed, and keys and values do not change once computed. So each glimpse projects only the
newest token and stores its key and value: the same numbers, with linear instead of quadratic work per glimpse.

Ours, for few training images: o_t = mean(h_1..h_t). Every glimpse adds its own evidence to the logits, and no attention
can learn to ignore windows.

Source: Tan et al. 2021 (one head); Supeene & Wang (one or four); attention as in Vaswani et al. 2017.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet.models.initialization import kaiming_init

Memory = tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]
"""What a fusion stores of the glimpses so far: keys and values, or sum and count of the tokens."""


class AttentionFusion(nn.Module):
    """Self-attention over the glimpses so far, one at a time.

    Args:
        width: channels of the tokens.
        num_heads: number of attention heads.
        uniform: start with equal attention to all glimpses (zero key weights). With Kaiming weights, nearly all
            attention starts on one glimpse, usually the first, and training hardly shifts it.

    Raises:
        ValueError: if ``num_heads`` does not divide ``width``.
    """

    def __init__(self, width: int, num_heads: int = 1, uniform: bool = False):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ValueError(
                f"{num_heads} heads do not divide the fusion's width {width}"
                " (the affine clue adds 3 channels; the positional one none)"
            )
        self.attention: nn.MultiheadAttention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm: nn.LayerNorm = nn.LayerNorm(width)
        kaiming_init(self)
        if uniform:
            nn.init.zeros_(self.attention.in_proj_weight[width : 2 * width])

    def forward(
        self, token: Float[Tensor, "batch width"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "batch width"], Memory]:
        """Newest token h_t, memory of the earlier ones (None for the first glimpse) -> o_t, new memory."""
        attention = self.attention
        projected = F.linear(token, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = projected.view(token.shape[0], 3, attention.num_heads, 1, attention.head_dim).unbind(1)
        if memory is not None:
            key, value = torch.cat([memory[0], key], 2), torch.cat([memory[1], value], 2)
        attended = F.scaled_dot_product_attention(query, key, value).flatten(1)
        return F.relu(self.norm(attention.out_proj(attended))), (key, value)


class MeanFusion(nn.Module):
    """o_t = mean(h_1..h_t): logits are the mean of the logits of each glimpse alone."""

    def forward(
        self, token: Float[Tensor, "batch width"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "batch width"], Memory]:
        """Newest token, (sum, count) of the earlier ones (None for the first glimpse) -> mean, new memory."""
        total, count = token, torch.ones_like(token[:, :1])
        if memory is not None:
            total, count = memory[0] + total, memory[1] + count
        return total / count, (total, count)


class NoFusion(nn.Module):
    """o_t = h_t: each answer uses one glimpse. With one glimpse of the whole image, this is the plain backbone."""

    def forward(
        self, token: Float[Tensor, "batch width"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "batch width"], Memory | None]:
        """The token, unchanged, and no memory."""
        return token, memory

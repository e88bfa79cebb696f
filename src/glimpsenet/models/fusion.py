"""Feature fusion over the glimpses so far.

    o_t = ReLU(LayerNorm(Attention(query = h_t, keys = values = h_1..h_t)))

The report's fusion is self-attention over h_1..h_t of which only the newest position's output is used. Every other
position's query would be thrown away, and keys and values do not change once computed: so each glimpse projects the
newest token only and remembers its key and value. Same numbers, linear instead of quadratic work per glimpse.

Ours, for few training images: o_t = mean(h_1..h_t), so that every glimpse adds its own evidence to the logits and no
attention can learn to ignore windows.

Source: Tan et al. 2021 (one head); Supeene & Wang (one or four); attention as in Vaswani et al. 2017.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet.models.initialization import kaiming_init

Memory = tuple[Float[Tensor, "batch ..."], Float[Tensor, "batch ..."]]
"""What a fusion remembers of the glimpses so far: keys and values, or their sum and number."""


class AttentionFusion(nn.Module):
    """Self-attention over the glimpses so far, one at a time.

    Args:
        width: of the tokens.
        num_heads: of the attention.
        uniform: begin with equal attention to all glimpses (keys zero). Kaiming's weights begin with nearly all of
            it on one, as a rule the first glimpse, and training hardly moves it from there.

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
        """The newest glimpse's token h_t and the memory of the ones before (None at the first) -> o_t, new memory."""
        attention = self.attention
        projected = F.linear(token, attention.in_proj_weight, attention.in_proj_bias)
        query, key, value = projected.view(token.shape[0], 3, attention.num_heads, 1, attention.head_dim).unbind(1)
        if memory is not None:
            key, value = torch.cat([memory[0], key], 2), torch.cat([memory[1], value], 2)
        attended = F.scaled_dot_product_attention(query, key, value).flatten(1)
        return F.relu(self.norm(attention.out_proj(attended))), (key, value)


class MeanFusion(nn.Module):
    """o_t = mean(h_1..h_t): logits are the mean of what each glimpse says by itself."""

    def forward(
        self, token: Float[Tensor, "batch width"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "batch width"], Memory]:
        """The newest token and (sum, number) of the ones before (None at the first) -> their mean, the new memory."""
        total, count = token, torch.ones_like(token[:, :1])
        if memory is not None:
            total, count = memory[0] + total, memory[1] + count
        return total / count, (total, count)


class NoFusion(nn.Module):
    """o_t = h_t: every answer comes from its own glimpse. With one glimpse of the whole image, the plain backbone."""

    def forward(
        self, token: Float[Tensor, "batch width"], memory: Memory | None = None
    ) -> tuple[Float[Tensor, "batch width"], Memory | None]:
        """The token as it is; nothing is remembered."""
        return token, memory

"""The localization networks of MGNet and the report: from the state to the next window.

    z = sigmoid(W o_t + b)                               MGNet's, from the fusion's output
    z = sigmoid(W mean(Block(u_1..u_9t)) + b)            the report's spatiotemporal one, from all tokens so far
    s = s_min + (s_max - s_min) z_1,   (tx, ty) = (2 z_2,3 - 1) (1 - s)

so the window stays inside the image. The tokens u are the locations of a backbone layer's feature maps, of all glimpses
so far, each with the 2-D positional encoding of its position in the image. In the backward pass, the gradient at the
sigmoid's output is multiplied by 0.02; otherwise the weights explode (Tan et al. 2021; Supeene & Wang, 4.1.2).
"""

import abc
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet import geometry
from glimpsenet.models.clues import check_divisible_by_four, position_in_pixels, sinusoidal_encoding
from glimpsenet.models.initialization import kaiming_init
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy, ScaleRange, StochasticPolicy
from glimpsenet.policies.distributions import GaussianWindows, squash_to_window
from glimpsenet.precision import at_least_float32


class GradientRescaling(torch.autograd.Function):
    """Identity in the forward pass; multiplies the gradient by ``factor`` in the backward pass."""

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The input, unchanged."""
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Store the factor."""
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient, rescaled."""
        return grad_output * ctx.factor, None


class Localization(Policy, abc.ABC):
    """A network whose last layer is linear and gives the three parameters of the next window.

    Args:
        width: input channels of that layer.
        scale_range: smallest and largest s.
        gradient_factor: factor on gradients into the network.
    """

    def __init__(self, width: int, scale_range: ScaleRange, gradient_factor: float = 0.02):
        super().__init__()
        self.fc = nn.Linear(width, 3)
        self.scale_range, self.gradient_factor = scale_range, gradient_factor

    @abc.abstractmethod
    def summarize(self, state: GlimpseState) -> Float[Tensor, "batch width"]:
        """The input of the last layer."""

    def raw(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """The output of the last layer, before the sigmoid."""
        return self.fc(self.summarize(state))

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        raw = self.raw(state)
        # Lower precision would shift windows by whole pixels: use float32 from here to the sampling.
        with torch.autocast(raw.device.type, enabled=False):
            raw = GradientRescaling.apply(at_least_float32(raw).sigmoid(), self.gradient_factor)
            return squash_to_window(raw, self.scale_range)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"scale_range={self.scale_range}, gradient_factor={self.gradient_factor}"


class LocalizationNetwork(Localization):
    """MGNet's network, on the fusion's output o_t."""

    def __init__(self, width: int, scale_range: ScaleRange, gradient_factor: float = 0.02):
        super().__init__(width, scale_range, gradient_factor)
        kaiming_init(self)

    def summarize(self, state: GlimpseState) -> Float[Tensor, "batch width"]:
        """The fusion's newest output."""
        return state.fused[-1]


class SpatiotemporalLocalization(Localization):
    """The report's network: a self-attention block over the feature map tokens of all glimpses so far, averaged.

    The block is that of the fusion, ReLU(LayerNorm(Attention)). The report only says "self-attention block"; without
    the normalisation, the sigmoid saturates at the first glimpse and the window never leaves a corner.

    Args:
        channels: channels of the feature map, the only one that the backbone returns.
        image_size: side of the images in pixels, for the positional encoding.
        scale_range: smallest and largest s.
        gradient_factor: factor on gradients into the network.
    """

    def __init__(self, channels: int, image_size: int, scale_range: ScaleRange, gradient_factor: float = 0.02):
        super().__init__(channels, scale_range, gradient_factor)
        check_divisible_by_four(channels)
        self.attention = nn.MultiheadAttention(channels, 1, batch_first=True)
        self.norm = nn.LayerNorm(channels)
        self.image_size = image_size
        kaiming_init(self)

    def summarize(self, state: GlimpseState) -> Float[Tensor, "batch width"]:
        """Mean of the block's output tokens."""
        maps = torch.stack([features.maps[0] for features in state.features], 1)
        # As in the clue, no gradient flows through the tokens' positions into the windows.
        centres = geometry.cell_centres(torch.stack(state.windows, 1).detach(), maps.shape[-2], maps.shape[-1])
        code = sinusoidal_encoding(position_in_pixels(centres, self.image_size), maps.shape[2])
        tokens = (maps.movedim(2, -1) + code.to(maps.dtype)).flatten(1, 3)
        attended = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return F.relu(self.norm(attended)).mean(1)


class GaussianPolicy(StochasticPolicy):
    """Samples windows around those of a localization network (RAM, Mnih et al. 2014); uses the network's in evaluation.

    Args:
        network: gives the mean, before its sigmoid.
        sigma: standard deviation, before the sigmoid.
    """

    def __init__(self, network: Localization, sigma: float):
        super().__init__()
        self.network, self.sigma = network, sigma

    def distribution(self, state: GlimpseState) -> GaussianWindows:
        """See :class:`~glimpsenet.policies.base.StochasticPolicy`."""
        return GaussianWindows(at_least_float32(self.network.raw(state)), self.sigma, self.network.scale_range)

"""The paper's localization network.

    z = sigmoid(W o_t + b),   s = s_min + (s_max - s_min) z_1,   (tx, ty) = (2 z_2,3 - 1) (1 - s)

so that the window stays inside the image. The gradient is multiplied by 0.02 right after the sigmoid, on its way back;
without that its weights explode (Tan et al. 2021; Supeene & Wang show it).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet.models.initialization import kaiming_init
from glimpsenet.models.policies import Policy, ScaleRange
from glimpsenet.models.state import GlimpseState


class GradientRescaling(torch.autograd.Function):
    """Identity forwards; backwards the gradient times ``factor``."""

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The input, unchanged."""
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep the factor."""
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradient, rescaled."""
        return grad_output * ctx.factor, None


def squash_to_window(raw: Float[Tensor, "*batch 3"], scale_range: ScaleRange) -> Float[Tensor, "*batch 3"]:
    """Numbers in [0, 1] -> a window that lies inside the image, with its scale in the range."""
    smallest, largest = scale_range
    scale = smallest + (largest - smallest) * raw[..., :1]
    return torch.cat([scale, (2 * raw[..., 1:] - 1) * (1 - scale)], -1)


class LocalizationNetwork(Policy):
    """One linear layer from the fusion's output to the next window.

    Args:
        width: channels of the fusion's output.
        scale_range: smallest and largest s.
        gradient_factor: what gradients into the network are multiplied by.
    """

    def __init__(self, width: int, scale_range: ScaleRange, gradient_factor: float = 0.02):
        super().__init__()
        self.fc = nn.Linear(width, 3)
        self.scale_range, self.gradient_factor = scale_range, gradient_factor
        kaiming_init(self)

    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        raw = self.fc(state.fused[-1])
        # Coordinates in lower precision would jump by whole pixels: float32 from here to the sampling.
        with torch.autocast(raw.device.type, enabled=False):
            raw = GradientRescaling.apply(raw.float().sigmoid(), self.gradient_factor)
            return squash_to_window(raw, self.scale_range)

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"scale_range={self.scale_range}, gradient_factor={self.gradient_factor}"

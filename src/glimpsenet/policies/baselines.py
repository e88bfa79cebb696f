"""Policies that do not learn: random, center, oracle, fixed; baselines for a learned policy.

"none", the first glimpse only, needs no policy: it is the model with ``num_glimpses=1``.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.distributions import squash_to_window

PolicyName = Literal["learned", "random", "center", "none", "oracle"]
"""The model's policy, a baseline, or no windows after the first glimpse."""


def baseline_policy(
    name: Literal["random", "center", "oracle"],
    scale_range: ScaleRange,
    *,
    glimpse_size: int | None = None,
    seed: int = 0,
    boxes: Float[Tensor, "batch 4"] | None = None,
) -> Policy:
    """Create a baseline policy.

    Args:
        name: random, center or oracle.
        scale_range: smallest and largest s of its windows.
        glimpse_size: side of a glimpse in pixels, for center.
        seed: for random.
        boxes: boxes of the images in the batch, in pixels, for oracle.

    Raises:
        ValueError: if an argument that the baseline needs is missing.
    """
    if name == "random":
        return RandomGlimpses(scale_range, seed)
    if name == "center" and glimpse_size is not None:
        return CenterGlimpses(scale_range, glimpse_size)
    if name == "oracle" and boxes is not None:
        return OracleGlimpses(scale_range, boxes)
    raise ValueError(f"policy '{name}' needs {'boxes' if name == 'oracle' else 'glimpse_size'}")


class RandomGlimpses(Policy):
    """s uniform in the range, the centre uniform over positions that keep the window inside the image.

    Uses its own random generator on the CPU: same windows on every device, and no effect on other random numbers.

    Args:
        scale_range: smallest and largest s, 0 < s_min <= s_max <= 1.
        seed: seed of its generator.

    Example:
        >>> model = glimpsenet.load("runs/digits")
        >>> images = model.normalization(torch.rand(2, 1, 80, 80))
        >>> model(images, policy=glimpsenet.RandomGlimpses((0.2, 0.5), seed=1)).windows.shape
        torch.Size([2, 4, 3])
    """

    def __init__(self, scale_range: ScaleRange, seed: int = 0):
        super().__init__()
        self.scale_range = scale_range
        self.generator: torch.Generator = torch.Generator().manual_seed(seed)

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        uniform = torch.rand(len(state.images), 3, generator=self.generator)
        return squash_to_window(uniform, self.scale_range).to(state.images.device)


class CenterGlimpses(Policy):
    """The centre of the image at native resolution: s = g / H, clipped to the range.

    Args:
        scale_range: smallest and largest s, 0 < s_min <= s_max <= 1.
        glimpse_size: g, side of a glimpse in pixels.

    Example:
        >>> model = glimpsenet.load("runs/digits")
        >>> images = model.normalization(torch.rand(2, 1, 80, 80))
        >>> model(images, policy=glimpsenet.CenterGlimpses((0.2, 0.5), 20)).windows[0, 1].tolist()
        [0.25, 0.0, 0.0]
    """

    def __init__(self, scale_range: ScaleRange, glimpse_size: int):
        super().__init__()
        self.scale_range = scale_range
        self.glimpse_size = glimpse_size

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        smallest, largest = self.scale_range
        window = torch.zeros_like(geometry.first_window(state.images))
        window[:, 0] = min(max(self.glimpse_size / state.images.shape[-1], smallest), largest)
        return window


class OracleGlimpses(Policy):
    """The true location: the box's centre, s = 1.25 times half its longer side, clipped to the range, moved inside.

    If the box is unknown (NaN), it chooses the image's centre at the largest scale.

    Args:
        scale_range: smallest and largest s, 0 < s_min <= s_max <= 1.
        boxes: (x0, y0, x1, y1) in pixels, for each image in the batch.

    Example:
        >>> model = glimpsenet.load("runs/digits")
        >>> images = model.normalization(torch.rand(1, 1, 80, 80))
        >>> boxes = torch.tensor([[12.0, 12.0, 28.0, 28.0]])
        >>> window = model(images, policy=glimpsenet.OracleGlimpses((0.2, 0.5), boxes)).windows[0, 1]
        >>> [round(value, 3) for value in window.tolist()]
        [0.25, -0.5, -0.5]
    """

    def __init__(self, scale_range: ScaleRange, boxes: Float[Tensor, "batch 4"]):
        super().__init__()
        self.scale_range = scale_range
        self.boxes = boxes

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        smallest, largest = self.scale_range
        window = geometry.box_to_window(self.boxes.to(state.images.device, torch.float32), state.images.shape[-1])
        window = torch.where(window.isnan(), window.new_tensor([largest, 0.0, 0.0]), window)
        scale = (1.25 * window[:, :1]).clamp(smallest, largest)
        return geometry.move_inside(torch.cat([scale, window[:, 1:]], -1))


class FixedGlimpses(Policy):
    """Injects given windows at given glimpses; ``otherwise`` chooses the others and reacts to them.

    Args:
        windows: glimpse (1 is the first glimpse) -> (s, tx, ty), one triple, or one per sample ``[batch, 3]``.
        otherwise: policy for the other glimpses.

    Raises:
        ValueError: for a glimpse below 1.

    Example:
        >>> model = glimpsenet.load("runs/digits")
        >>> images = model.normalization(torch.rand(1, 1, 80, 80))
        >>> policy = glimpsenet.FixedGlimpses({2: (0.25, 0.5, 0.5)}, otherwise=model.policy)
        >>> model(images, policy=policy).windows[0, 1].tolist()
        [0.25, 0.5, 0.5]
    """

    def __init__(self, windows: Mapping[int, Tensor | tuple[float, float, float]], otherwise: Policy):
        super().__init__()
        if any(glimpse < 1 for glimpse in windows):
            raise ValueError(f"glimpses count from 1, the first glimpse; got {min(windows)}")
        self.windows: dict[int, Tensor] = {
            glimpse: window if isinstance(window, Tensor) else torch.tensor(window, dtype=torch.float32)
            for glimpse, window in windows.items()
        }
        self.otherwise = otherwise

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        if state.glimpse not in self.windows:
            return self.otherwise(state)
        return self.windows[state.glimpse].to(state.images.device).expand(len(state.images), 3)

    def forward(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """Any glimpse can be injected, including the first."""
        return self.choose(state)

"""A custom learned policy, which chooses among the four corners and the centre.

Run it: ``python examples/learned_policy.py runs/corners``.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import glimpsenet
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import StochasticPolicy
from glimpsenet.policies.config import PolicyConfig
from glimpsenet.policies.distributions import CategoricalWindows
from glimpsenet.training.config import PolicyGradientConfig


class CornerPolicy(StochasticPolicy):
    """p(window) = softmax(W o_t + b) over five windows of one scale."""

    scores_windows = True
    differentiable = False
    windows: torch.Tensor

    def __init__(self, width: int, scale: float):
        super().__init__()
        self.score = nn.Linear(width, 5)
        places = [(0, 0), (-1, -1), (1, -1), (-1, 1), (1, 1)]
        windows = torch.tensor([[scale, x * (1 - scale), y * (1 - scale)] for x, y in places])
        self.register_buffer("windows", windows, persistent=False)

    def distribution(self, state: GlimpseState) -> CategoricalWindows:
        """The distribution of the next window; outside training, the likeliest window is used."""
        scores = self.score(state.fused[-1].detach().float())
        return CategoricalWindows(self.windows.expand(len(scores), 5, 3), scores)


@dataclass(frozen=True, kw_only=True)
class CornersConfig(PolicyConfig):
    """Four corners and the centre."""

    kind = "corners"
    described = "a policy that chooses among four corners and the centre"
    scale: float = 0.5
    """Scale s of all windows, 0..1."""

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise glimpsenet.UserError(f"scale must be in 0..1, got {self.scale}")

    def build(
        self, *, width: int, map_channels: Sequence[int], image_size: int, scale_range: tuple[float, float]
    ) -> CornerPolicy:
        """Build the policy; ``width`` is that of the fusion's output."""
        return CornerPolicy(width, self.scale)


PolicyConfig.kinds["corners"] = CornersConfig  # config.json names it: import this file before loading a run


def main(folder: str, steps: int = 300) -> None:
    """Train on digit scenes, load the run again, and print its accuracy."""
    config = glimpsenet.recipe("digits")
    config = replace(
        config,
        model=replace(config.model, policy=CornersConfig()),
        training=replace(config.training, max_steps=steps, objective=PolicyGradientConfig()),
    )
    summary = glimpsenet.fit(config, Path(folder))
    run = glimpsenet.load_run(folder)
    print(type(run.model.policy).__name__, "accuracy", summary["metrics"]["accuracy"])


if __name__ == "__main__":
    main(sys.argv[1])

"""A custom objective: learn to imitate another policy, here the one in ``policy.py``.

Run it: ``python examples/objective.py runs/imitation``.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import glimpsenet
from glimpsenet.recipes import digits
from glimpsenet.training.objectives import Objective
from policy import ContrastGlimpses


class Imitation(Objective):
    """-log pi(the teacher's window), mean over images and glimpses: the policy's cross-entropy to the teacher."""

    def __init__(self, teacher: glimpsenet.Policy, scale_range: tuple[float, float]):
        super().__init__(scale_range)
        self.teacher = teacher

    def forward(self, model: Any, output: Any, labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """The loss of one batch; ``state.before(t)`` is the state from which window t was chosen."""
        losses = []
        for step in range(2, output.state.glimpse):
            before = output.state.before(step)
            chance = model.policy.distribution(before).log_probability(self.teacher(before))
            losses.append(-chance.clamp(min=-50))  # no gradient from windows that max_overlap excludes
        return torch.stack(losses).mean()


def main(folder: str, steps: int = 300) -> None:
    """Train on digit scenes, and print accuracy and found rate."""
    config = digits()
    config = replace(config, training=replace(config.training, max_steps=steps))
    objective = Imitation(ContrastGlimpses(), config.model.scale_range)
    summary = glimpsenet.fit(config, Path(folder), objective=objective)
    print("accuracy", summary["metrics"]["accuracy"], "found", summary["metrics"]["found_rate"])


if __name__ == "__main__":
    main(sys.argv[1])

"""Value map: the score of a window predicts its reward; windows drawn at random teach it as well as chosen ones (ours).

loss = Huber(score(a_t), r_t)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.exploration import DiverseGlimpses
from glimpsenet.training.objectives.base import Objective
from glimpsenet.training.rewards import Reward


class ValueMap(Objective):
    """A contextual bandit, epsilon-greedy.

    Args:
        scale_range: smallest and largest s.
        reward: what each window was worth.
        weight: see :class:`~glimpsenet.training.objectives.base.Objective`.
        delta: errors beyond it count linearly (Huber's loss).
    """

    def __init__(self, scale_range: ScaleRange, reward: Reward, *, weight: float = 1.0, delta: float = 1.0):
        super().__init__(scale_range, weight=weight)
        self.reward, self.delta = reward, delta

    def behaviour(
        self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor, progress: float = 0.0
    ) -> Policy:
        """The best window, or, now and then, any."""
        return DiverseGlimpses(model.policy, share, self.scale_range, greedy=True)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`~glimpsenet.training.objectives.base.Objective`."""
        state = output.state
        scores = [
            model.policy.distribution(state.before(glimpse)).score(state.windows[glimpse - 1])
            for glimpse in range(2, state.glimpse)
        ]
        return F.huber_loss(torch.stack(scores, 1), self.reward(output, labels), delta=self.delta)

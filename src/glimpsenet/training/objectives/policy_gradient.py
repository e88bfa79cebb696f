"""Policy gradient: windows that brought more than expected become likelier.

    loss = (b(o_{t-1}) - R_t)^2 - A_t log pi(a_t),   A_t = R_t - b(o_{t-1}), standardised over the batch

Sources: REINFORCE (Williams 1992); the recurrent attention model, RAM (Mnih et al. 2014).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.policies.base import ScaleRange
from glimpsenet.precision import at_least_float32
from glimpsenet.training.objectives.base import Objective
from glimpsenet.training.rewards import Reward


class PolicyGradient(Objective):
    """REINFORCE with a learned baseline and a reward a window.

    Args:
        scale_range: smallest and largest s.
        reward: what each window was worth.
        width: of the fusion's output, which the baseline reads.
        weight: see :class:`~glimpsenet.training.objectives.base.Objective`.
        discount: weight of the next window's reward, of the one after it squared...; 0 credits each window alone.
        entropy_weight: bonus for undecided policies.
    """

    def __init__(
        self,
        scale_range: ScaleRange,
        reward: Reward,
        width: int,
        *,
        weight: float = 1.0,
        discount: float = 0.0,
        entropy_weight: float = 0.0,
    ):
        super().__init__(scale_range, weight=weight)
        self.reward, self.discount, self.entropy_weight = reward, discount, entropy_weight
        self.baseline = nn.Linear(width, 1)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`~glimpsenet.training.objectives.base.Objective`."""
        state = output.state
        glimpses = range(2, state.glimpse)
        returns = discounted(self.reward(output, labels), self.discount)
        expected = self.baseline(at_least_float32(torch.stack(state.fused[:-1], 1).detach()))[..., 0]
        distributions = [model.policy.distribution(state.before(glimpse)) for glimpse in glimpses]
        log_probability = torch.stack(
            [d.log_probability(state.windows[glimpse - 1]) for d, glimpse in zip(distributions, glimpses, strict=True)],
            1,
        )
        advantage = (returns - expected).detach()
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6)
        gain = self.gain(output, log_probability, advantage)
        entropy = torch.stack([d.entropy() for d in distributions], 1)
        return F.mse_loss(expected, returns) - gain.mean() - self.entropy_weight * entropy.mean()

    def gain(
        self,
        output: GlimpseOutput,
        log_probability: Float[Tensor, "batch later_glimpse"],
        advantage: Float[Tensor, "batch later_glimpse"],
    ) -> Float[Tensor, "batch later_glimpse"]:
        """What is to grow: A pi / pi, the denominator held; its gradient is that of A log pi."""
        return (log_probability - log_probability.detach()).exp() * advantage


def discounted(rewards: Float[Tensor, "batch glimpse"], discount: float) -> Float[Tensor, "batch glimpse"]:
    """Sum of the rewards from each glimpse on, each glimpse later counting ``discount`` times as much."""
    returns = list(rewards.unbind(1))
    for glimpse in reversed(range(len(returns) - 1)):
        returns[glimpse] = returns[glimpse] + discount * returns[glimpse + 1]
    return torch.stack(returns, 1)

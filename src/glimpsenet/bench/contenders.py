"""Objectives that lost to the library's in ``bench localization``, kept for comparison; use the public interface only.

listwise       CE(softmax(scores of K windows), softmax(their rewards / tau))
feature map    CE of a classifier on the first feature map at a_t  (Uni-AdaFocus, Wang et al. 2024)
guidance       boxes, with the most informative of K random windows as the box       (an idea of MGNet's authors)
PPO            policy gradient with a clipped ratio and several passes over a batch    (Schulman et al. 2017)
oracle         no policy is learned; training uses windows on the boxes: the bound for all
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsenet.losses import glimpse_losses
from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.policies.baselines import FixedGlimpses, OracleGlimpses
from glimpsenet.policies.distributions import squash_to_window
from glimpsenet.precision import at_least_float32
from glimpsenet.training.config import ObjectiveConfig, PolicyGradientConfig
from glimpsenet.training.objectives import Objective, PolicyGradient, distance_to
from glimpsenet.training.rewards import REWARDS


@dataclass(frozen=True, kw_only=True)
class OracleConfig(ObjectiveConfig):
    """Training uses windows on the boxes."""

    kind = "oracle"

    def build(self, model: GlimpseNet, scale_range: ScaleRange) -> Objective:
        """See :class:`~glimpsenet.training.config.ObjectiveConfig`."""
        return Oracle(scale_range)


class Oracle(Objective):
    """No policy is learned: training, too, uses windows on the boxes. The bound for the other objectives."""

    def behaviour(
        self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor, progress: float = 0.0
    ) -> Policy:
        """The oracle policy."""
        return OracleGlimpses(self.scale_range, boxes)

    def examined(self, boxes: Tensor) -> Policy:
        """The oracle policy: with the untrained one, validation would choose checkpoints by chance."""
        return OracleGlimpses(self.scale_range, boxes)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """Zero."""
        return output.logits.new_zeros(())


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyGradientConfig):
    """Policy gradient with two passes over each batch."""

    kind = "ppo"

    def build(self, model: GlimpseNet, scale_range: ScaleRange) -> Objective:
        """See :class:`~glimpsenet.training.config.ObjectiveConfig`."""
        super().build(model, scale_range)  # what it rejects
        settings = {"weight": self.weight, "discount": self.discount, "entropy_weight": self.entropy_weight}
        return PPO(scale_range, REWARDS[self.reward], model.classifier.in_features, **settings)


class PPO(PolicyGradient):
    """PPO's clipped ratio; later passes reuse the windows of the first.

    gain = min(rho A, clip(rho, 1 - c, 1 + c) A),   rho = pi(a) / pi_first_pass(a)
    """

    passes = 2
    clip = 0.2

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.first: list[Tensor] = []  # windows, log-probabilities and advantages of the batch's first pass
        self.passed = 0

    def get_extra_state(self) -> dict[str, Any]:
        """The position within the passes over a batch, for checkpoints."""
        return {"passed": self.passed, "first": self.first}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """See :meth:`get_extra_state`."""
        self.passed, self.first = state["passed"], state["first"]

    def behaviour(
        self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor, progress: float = 0.0
    ) -> Policy:
        """The policy in a batch's first pass, the same windows in later ones."""
        if self.passed == 0:
            return super().behaviour(model, share, labels, boxes, progress)
        windows = self.first[0].to(labels.device).unbind(1)
        return FixedGlimpses(dict(enumerate(windows, 1)), model.policy)

    def gain(self, output: GlimpseOutput, log_probability: Tensor, advantage: Tensor) -> Tensor:
        """See :class:`~glimpsenet.training.objectives.PolicyGradient`."""
        if self.passed == 0:
            self.first = [output.windows.detach(), log_probability.detach(), advantage]
        _, before, advantage = (tensor.to(log_probability.device) for tensor in self.first)
        self.passed = (self.passed + 1) % self.passes
        ratio = (log_probability - before).exp()
        return torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)


@dataclass(frozen=True, kw_only=True)
class ListwiseConfig(ObjectiveConfig):
    """Fit the policy's probabilities of candidate windows to their rewards."""

    kind = "listwise"
    weight: float = 1.0

    def build(self, model: GlimpseNet, scale_range: ScaleRange) -> Objective:
        """See :class:`~glimpsenet.training.config.ObjectiveConfig`."""
        self.check_windows(model)
        self.check_stochastic(model)
        self.check_auxiliary(model)
        return Listwise(scale_range, weight=self.weight)


class BestOfCandidates(Policy):
    """Choose the most informative of K windows, half of them drawn from the policy and half at random.

    The auxiliary classifier scores all of them in one pass, without gradient and with fixed batch normalisation
    statistics. Its scores are kept for the objective.
    """

    def __init__(self, model: GlimpseNet, labels: Int[Tensor, "batch"], count: int, share: float):
        super().__init__()
        self._model = [model]  # a list, so that the model is not registered as a submodule
        self.labels, self.count, self.share = labels, count, share
        self.windows: list[Float[Tensor, "batch candidate 3"]] = []
        self.rewards: list[Float[Tensor, "batch candidate"]] = []

    @torch.no_grad()
    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.policies.base.Policy`."""
        (model,) = self._model
        distribution = model.policy.distribution(state)
        windows = [distribution.sample() if k % 2 else distribution.explore() for k in range(self.count)]
        self.windows.append(torch.stack(windows, 1))
        self.rewards.append(judge(model, state.images, self.windows[-1], self.labels))
        at_random = torch.rand_like(self.rewards[-1][:, 0]) < self.share
        choice = torch.where(at_random, 0, self.rewards[-1].argmax(1))
        return self.windows[-1][torch.arange(len(choice), device=choice.device), choice]


class Listwise(Objective):
    """Fit the policy's probabilities of K candidate windows to their rewards; the best one comes next.

    Args:
        scale_range: smallest and largest s.
        candidates: K.
        tau: temperature of the target.
    """

    def __init__(self, scale_range: ScaleRange, candidates: int = 4, tau: float = 0.5, *, weight: float = 1.0):
        super().__init__(scale_range, weight=weight)
        self.candidates, self.tau = candidates, tau
        self._newest: list[BestOfCandidates] = []

    def behaviour(
        self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor, progress: float = 0.0
    ) -> Policy:
        """See :class:`BestOfCandidates`."""
        self._newest = [BestOfCandidates(model, labels, self.candidates, share)]
        return self._newest[0]

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        policy, state = model.policy, output.state
        (looked,) = self._newest
        losses = []
        for glimpse, (windows, rewards) in enumerate(zip(looked.windows, looked.rewards, strict=True), 2):
            distribution = policy.distribution(state.before(glimpse))
            chances = torch.stack([distribution.log_probability(window) for window in windows.unbind(1)], 1)
            target = (rewards / self.tau).softmax(1)
            losses.append(-(target * chances.log_softmax(1)).sum(1).mean())
        return torch.stack(losses).mean()


@dataclass(frozen=True, kw_only=True)
class FeatureMapConfig(ObjectiveConfig):
    """Move the policy's window over the first feature map."""

    kind = "feature-map"
    weight: float = 1.0

    def build(self, model: GlimpseNet, scale_range: ScaleRange) -> Objective:
        """See :class:`~glimpsenet.training.config.ObjectiveConfig`."""
        self.check_windows(model)
        if not model.policy.differentiable:
            self.refuse(f"cannot train {type(model.policy).__name__}, whose choices have no gradient")
        if not model.backbone.layers:
            self.refuse("needs a feature map: policy 'spatiotemporal'")
        return FeatureMap(scale_range, model.backbone.map_channels[0], model.num_classes, weight=self.weight)


class FeatureMap(Objective):
    """Train the policy without sampling pixels: its window moves over the detached map of the first glimpse.

    The bilinear average of that map in the window goes through a separate classifier, whose loss moves the window.
    """

    def __init__(
        self, scale_range: ScaleRange, channels: int, num_classes: int, points: int = 5, *, weight: float = 1.0
    ):
        super().__init__(scale_range, weight=weight)
        self.points = points
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        first = at_least_float32(output.state.features[0].maps[0].detach())
        losses = []
        for glimpse in range(2, output.state.glimpse):
            window = model.policy(output.state.before(glimpse).detached())
            ticks = torch.linspace(-1 + 1 / self.points, 1 - 1 / self.points, self.points, device=window.device)
            own = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
            grid = window[:, None, None, 1:] + window[:, None, None, :1] * own
            pooled = F.grid_sample(first, grid, "bilinear", "border", False).mean((2, 3))
            losses.append(F.cross_entropy(self.classifier(pooled), labels))
        return torch.stack(losses).mean()


@dataclass(frozen=True, kw_only=True)
class GuidanceConfig(ObjectiveConfig):
    """Train the policy towards the best of several random windows."""

    kind = "guidance"
    weight: float = 1.0

    def build(self, model: GlimpseNet, scale_range: ScaleRange) -> Objective:
        """See :class:`~glimpsenet.training.config.ObjectiveConfig`."""
        self.check_windows(model)
        self.check_auxiliary(model)
        return Guidance(scale_range, weight=self.weight)


class Guidance(Objective):
    """Box supervision without boxes: the target is the one of K random windows that the model classifies best.

    Args:
        scale_range: smallest and largest s.
        candidates: K.
    """

    def __init__(self, scale_range: ScaleRange, candidates: int = 4, *, weight: float = 1.0):
        super().__init__(scale_range, weight=weight)
        self.candidates = candidates

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        state = output.state
        glimpses, batch = range(2, state.glimpse), len(labels)
        uniform = torch.rand(batch, len(glimpses) * self.candidates, 3, device=labels.device)
        windows = squash_to_window(uniform, self.scale_range)
        with torch.no_grad():
            rewards = judge(model, state.images, windows, labels)
        best = rewards.unflatten(1, (len(glimpses), self.candidates)).argmax(2)
        wanted = windows.unflatten(1, (len(glimpses), self.candidates))
        losses = [
            distance_to(wanted[torch.arange(batch), place, best[:, place]], model.policy, state.before(glimpse))
            for place, glimpse in enumerate(glimpses)
        ]
        return torch.stack(losses).mean()


def judge(
    model: GlimpseNet,
    images: Float[Tensor, "batch channel size size"],
    windows: Float[Tensor, "batch n 3"],
    labels: Int[Tensor, "batch"],
) -> Float[Tensor, "batch n"]:
    """Log-likelihood of the true class by the auxiliary classifier in each window; statistics stay fixed."""
    assert model.auxiliary_classifier is not None
    training = model.backbone.training
    model.backbone.eval()
    crops = model.crops(images, windows)
    features = model.backbone(crops.flatten(0, 1)).pooled
    model.backbone.train(training)
    return -glimpse_losses(model.auxiliary_classifier(features).unflatten(0, crops.shape[:2]), labels)

"""Localization objectives: how a policy learns where to look. What a policy *is* stands in ``models/``.

    pathwise           the classification loss, through the sampling of the glimpse (Tan et al. 2021; the report)
    policy gradient    -A_t log pi(a_t),  A_t = r_t - b(o_{t-1})           (Williams 1992; RAM, Mnih et al. 2014)
    value map          (score(a_t) - r_t)^2, whoever chose a_t             (a contextual bandit, epsilon-greedy)
    listwise           CE(softmax(scores of K windows), softmax(their rewards / tau))
    feature map        CE of a classifier on the first feature map at a_t  (Uni-AdaFocus, Wang et al. 2024)
    salience           -log pi(the window on the box), or its distance     (boxes known; "GlimpseNet", 2017)
    guidance           the same for the one of K random windows that shows most   (an idea of MGNet's authors)

An objective is a loss beside the classification loss; r_t is one of ``rewards.py``.
"""

import abc
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from glimpsenet.config import ModelConfig, TrainingConfig
from glimpsenet.errors import SettingError
from glimpsenet.models.distributions import CategoricalWindows, squash_to_window
from glimpsenet.models.glimpsenet import GlimpseNet, GlimpseOutput
from glimpsenet.models.policies import (
    DiverseGlimpses,
    FixedGlimpses,
    OracleGlimpses,
    Policy,
    ScaleRange,
    StochasticPolicy,
)
from glimpsenet.models.state import GlimpseState
from glimpsenet.models.token_policy import TokenPolicy
from glimpsenet.precision import at_least_float32
from glimpsenet.training.losses import step_losses
from glimpsenet.training.penalties import overlap_penalty, scale_penalty
from glimpsenet.training.rewards import REWARDS, Reward


class Objective(nn.Module, abc.ABC):
    """What trains the policy beside the classification loss."""

    pathwise = False
    """Whether gradients of the classification loss reach the policy through its windows."""

    def __init__(self, scale_range: ScaleRange):
        super().__init__()
        self.scale_range = scale_range

    def behaviour(
        self, model: GlimpseNet, share: float, labels: Int[Tensor, "batch"], boxes: Float[Tensor, "batch 4"]
    ) -> Policy:
        """Who looks while training.

        Args:
            model: whose policy learns.
            share: of windows that are to be random.
            labels: true classes.
            boxes: where the evidence is.
        """
        return DiverseGlimpses(model.policy, share, self.scale_range, pathwise=self.pathwise)

    @abc.abstractmethod
    def forward(
        self,
        model: GlimpseNet,
        output: GlimpseOutput,
        labels: Int[Tensor, "batch"],
        boxes: Float[Tensor, "batch 4"],
    ) -> Float[Tensor, ""]:
        """The loss of one batch.

        Args:
            model: whose policy learns.
            output: of the batch, windows chosen by the policy or at random.
            labels: true classes.
            boxes: where the evidence is, in pixels; NaN where unknown.
        """


class Pathwise(Objective):
    """The policy learns from the classification loss, through its windows; of its own are only penalties on these.

    Gradients of the penalties, too, are multiplied by the localization network's factor on their way back.

    Args:
        scale_range: smallest and largest s.
        scale_weight: of :func:`~glimpsenet.training.penalties.scale_penalty`.
        overlap_weight: of :func:`~glimpsenet.training.penalties.overlap_penalty`.
    """

    pathwise = True

    def __init__(self, scale_range: ScaleRange, scale_weight: float = 0.0, overlap_weight: float = 0.0):
        super().__init__(scale_range)
        self.scale_weight, self.overlap_weight = scale_weight, overlap_weight

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        windows = output.affine
        return self.scale_weight * scale_penalty(windows) + self.overlap_weight * overlap_penalty(windows)


class Oracle(Objective):
    """Nothing learns to look: training, too, looks at the boxes. The bound that other objectives are measured by."""

    def behaviour(self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor) -> Policy:
        """The oracle."""
        return OracleGlimpses(self.scale_range, boxes)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """Zero."""
        return output.logits.new_zeros(())


class PolicyGradient(Objective):
    """REINFORCE with a learned baseline and a reward a window; with several passes over a batch, PPO's clipped ratio.

        loss = -min(rho A, clip(rho, 1 - c, 1 + c) A),   rho = pi(a) / pi_first_pass(a)     (Schulman et al. 2017)

    Later passes look through the windows of the first one; the loader repeats the batch (``RepeatedBatches``).

    Args:
        scale_range: smallest and largest s.
        reward: what each window was worth.
        width: of the fusion's output, which the baseline reads.
        discount: weight of the next window's reward, of the one after it squared...; 0 credits each window alone.
        entropy_weight: bonus for undecided policies.
        passes: optimiser steps on each batch.
        clip: c.
    """

    def __init__(
        self,
        scale_range: ScaleRange,
        reward: Reward,
        width: int,
        *,
        discount: float = 0.0,
        entropy_weight: float = 0.0,
        passes: int = 1,
        clip: float = 0.2,
    ):
        super().__init__(scale_range)
        self.reward, self.discount, self.entropy_weight = reward, discount, entropy_weight
        self.passes, self.clip = passes, clip
        self.baseline = nn.Linear(width, 1)
        self.first: list[Tensor] = []  # windows, log-probabilities and advantages of the batch's first pass
        self.passed = 0

    def get_extra_state(self) -> dict[str, Any]:
        """Where among its passes over a batch a checkpoint was written."""
        return {"passed": self.passed, "first": self.first}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """See :meth:`get_extra_state`."""
        self.passed, self.first = state["passed"], state["first"]

    def behaviour(self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor) -> Policy:
        """The policy on a batch's first pass, the same windows again on the others."""
        if self.passed == 0:
            return super().behaviour(model, share, labels, boxes)
        windows = self.first[0].to(labels.device).unbind(1)
        return FixedGlimpses(dict(enumerate(windows, 1)), model.policy)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        policy, state = _drawn(model, output)
        steps = range(2, state.glimpse)
        returns = discounted(self.reward(output, labels), self.discount)
        expected = self.baseline(at_least_float32(torch.stack(state.fused[:-1], 1).detach()))[..., 0]
        distributions = [policy.distribution(state.before(step)) for step in steps]
        log_probability = torch.stack(
            [d.log_probability(state.windows[step - 1]) for d, step in zip(distributions, steps, strict=True)], 1
        )
        if self.passed == 0:
            advantage = (returns - expected).detach()
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6)
            self.first = [output.affine.detach(), log_probability.detach(), advantage]
        _, before, advantage = (tensor.to(labels.device) for tensor in self.first)
        self.passed = (self.passed + 1) % self.passes
        ratio = (log_probability - before).exp()
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
        entropy = torch.stack([d.entropy() for d in distributions], 1)
        return F.mse_loss(expected, returns) - gain.mean() - self.entropy_weight * entropy.mean()


class ValueMap(Objective):
    """The score of a window predicts its reward; windows drawn at random teach it as well as chosen ones.

    Args:
        reward: what each window was worth.
        delta: errors beyond it count linearly (Huber's loss).
    """

    def __init__(self, scale_range: ScaleRange, reward: Reward, delta: float = 1.0):
        super().__init__(scale_range)
        self.reward, self.delta = reward, delta

    def behaviour(self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor) -> Policy:
        """The best window, or, now and then, any."""
        return DiverseGlimpses(model.policy, share, self.scale_range, greedy=True)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        policy, state = _drawn(model, output)
        scores = [
            _categorical(policy, state.before(step)).score(state.windows[step - 1]) for step in range(2, state.glimpse)
        ]
        return F.huber_loss(torch.stack(scores, 1), self.reward(output, labels), delta=self.delta)


class BestOfCandidates(Policy):
    """Of K windows, every other one drawn from the policy and the rest at random, the one that shows most.

    The auxiliary classifier judges all of them in one pass, without gradient and with the statistics of batch
    normalisation as they stand. What it said is kept for the objective.
    """

    def __init__(self, model: GlimpseNet, labels: Int[Tensor, "batch"], count: int, share: float):
        super().__init__()
        self._model = [model]  # a list, so that the model is no part of this one
        self.labels, self.count, self.share = labels, count, share
        self.windows: list[Float[Tensor, "batch candidate 3"]] = []
        self.rewards: list[Float[Tensor, "batch candidate"]] = []

    @torch.no_grad()
    def look(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`~glimpsenet.models.policies.Policy`."""
        (model,) = self._model
        assert isinstance(model.policy, StochasticPolicy)
        distribution = model.policy.distribution(state)
        windows = [distribution.sample() if k % 2 else distribution.explore() for k in range(self.count)]
        self.windows.append(torch.stack(windows, 1))
        self.rewards.append(judge(model, state.images, self.windows[-1], self.labels))
        at_random = torch.rand_like(self.rewards[-1][:, 0]) < self.share
        choice = torch.where(at_random, 0, self.rewards[-1].argmax(1))
        return self.windows[-1][torch.arange(len(choice), device=choice.device), choice]


class Listwise(Objective):
    """The policy's probabilities of K candidate windows follow what each would show; the best one is looked at.

    Args:
        scale_range: smallest and largest s.
        candidates: K.
        tau: temperature of the target.
    """

    def __init__(self, scale_range: ScaleRange, candidates: int = 4, tau: float = 0.5):
        super().__init__(scale_range)
        self.candidates, self.tau = candidates, tau
        self._newest: list[BestOfCandidates] = []

    def behaviour(self, model: GlimpseNet, share: float, labels: Tensor, boxes: Tensor) -> Policy:
        """See :class:`BestOfCandidates`."""
        self._newest = [BestOfCandidates(model, labels, self.candidates, share)]
        return self._newest[0]

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        policy, state = _drawn(model, output)
        (looked,) = self._newest
        losses = []
        for step, (windows, rewards) in enumerate(zip(looked.windows, looked.rewards, strict=True), 2):
            distribution = policy.distribution(state.before(step))
            chances = torch.stack([distribution.log_probability(window) for window in windows.unbind(1)], 1)
            target = (rewards / self.tau).softmax(1)
            losses.append(-(target * chances.log_softmax(1)).sum(1).mean())
        return torch.stack(losses).mean()


class FeatureMap(Objective):
    """No pixel is sampled for the policy's sake: its window is moved over the detached map of the first look.

    The bilinear average of that map in the window goes through a classifier of its own; the loss moves the window.
    """

    def __init__(self, scale_range: ScaleRange, channels: int, num_classes: int, points: int = 5):
        super().__init__(scale_range)
        self.points = points
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        first = at_least_float32(output.state.features[0].maps[0].detach())
        losses = []
        for step in range(2, output.state.glimpse):
            affine = model.policy(output.state.before(step).detached())
            ticks = torch.linspace(-1 + 1 / self.points, 1 - 1 / self.points, self.points, device=affine.device)
            own = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
            grid = affine[:, None, None, 1:] + affine[:, None, None, :1] * own
            pooled = F.grid_sample(first, grid, "bilinear", "border", False).mean((2, 3))
            losses.append(F.cross_entropy(self.classifier(pooled), labels))
        return torch.stack(losses).mean()


class Salience(Objective):
    """Learns from boxes: the likelihood of the oracle's window, or, without probabilities, the distance to it.

    Images without a known box do not count; a window that the policy may not choose again costs nothing.
    """

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        known = boxes.isfinite().all(1)
        losses = []
        for step in range(2, output.state.glimpse):
            before = output.state.before(step)
            losses.append(_distance(model.policy, before, OracleGlimpses(self.scale_range, boxes).look(before)))
        loss = torch.stack(losses, 1)
        return (loss * known[:, None]).sum() / (known.sum() * loss.shape[1]).clamp(min=1)


class Guidance(Objective):
    """Salience without boxes: every step's window should be the one of K random windows that the model reads best.

    Args:
        scale_range: smallest and largest s.
        candidates: K.
    """

    def __init__(self, scale_range: ScaleRange, candidates: int = 4):
        super().__init__(scale_range)
        self.candidates = candidates

    def forward(self, model: GlimpseNet, output: GlimpseOutput, labels: Tensor, boxes: Tensor) -> Tensor:
        """See :class:`Objective`."""
        state = output.state
        steps, batch = range(2, state.glimpse), len(labels)
        uniform = torch.rand(batch, len(steps) * self.candidates, 3, device=labels.device)
        windows = squash_to_window(uniform, self.scale_range)
        with torch.no_grad():
            rewards = judge(model, state.images, windows, labels)
        best = rewards.unflatten(1, (len(steps), self.candidates)).argmax(2)
        wanted = windows.unflatten(1, (len(steps), self.candidates))
        losses = [
            _distance(model.policy, state.before(step), wanted[torch.arange(batch), place, best[:, place]])
            for place, step in enumerate(steps)
        ]
        return torch.stack(losses).mean()


def create_objective(training: TrainingConfig, config: ModelConfig, model: GlimpseNet) -> Objective:
    """The objective that the settings name.

    Raises:
        SettingError: if the model's policy cannot learn by it, or it is to be handed in.
    """
    name, reward = training.objective, REWARDS[training.reward]
    _check_teachable(name, training.reward, model)
    if name == "policy-gradient":
        return PolicyGradient(
            config.scale_range,
            reward,
            model.classifier.in_features,
            discount=training.discount,
            entropy_weight=training.entropy_weight,
            passes=training.ppo_passes,
        )
    if name == "value-map":
        return ValueMap(config.scale_range, reward)
    if name == "feature-map":
        return FeatureMap(config.scale_range, model.backbone.map_channels[0], model.num_classes)
    if name == "pathwise":
        return Pathwise(config.scale_range, training.scale_penalty, training.overlap_penalty)
    return {"listwise": Listwise, "salience": Salience, "guidance": Guidance, "oracle": Oracle}[name](
        config.scale_range
    )


def _check_teachable(name: str, reward: str, model: GlimpseNet) -> None:
    policy = model.policy
    rewarded = name in ("policy-gradient", "value-map")
    reads_auxiliary = name in ("listwise", "guidance") or (rewarded and reward in ("evidence", "likelihood"))
    for wrong, problem in (
        (name == "own", "is an object, not a name: hand it to glimpsenet.fit(..., objective=...)"),
        (
            (rewarded or name == "listwise") and not isinstance(policy, StochasticPolicy),
            "needs a policy with probabilities: localization 'tokens', or a localization_noise",
        ),
        (
            name == "value-map" and not isinstance(policy, TokenPolicy),
            "needs scores of windows: localization 'tokens'",
        ),
        (
            model.num_glimpses == 1 and name not in ("pathwise", "oracle"),
            "has nothing to teach a model with num_glimpses 1: choose pathwise",
        ),
        (
            name in ("pathwise", "feature-map") and isinstance(policy, TokenPolicy) and model.num_glimpses > 1,
            "cannot teach localization 'tokens', whose choices have no gradient: choose another objective",
        ),
        (
            name == "feature-map" and not model.backbone.layers,
            "needs a feature map: localization 'spatiotemporal'",
        ),
        (
            reads_auxiliary and model.auxiliary_classifier is None,
            "reads the auxiliary classifier: set auxiliary_classifier",
        ),
    ):
        if wrong:
            raise SettingError(f"objective {name} {problem}")


def discounted(rewards: Float[Tensor, "batch step"], discount: float) -> Float[Tensor, "batch step"]:
    """Sum of the rewards from each step on, each step later counting ``discount`` times as much."""
    returns = list(rewards.unbind(1))
    for step in reversed(range(len(returns) - 1)):
        returns[step] = returns[step] + discount * returns[step + 1]
    return torch.stack(returns, 1)


def judge(
    model: GlimpseNet,
    images: Float[Tensor, "batch channel size size"],
    windows: Float[Tensor, "batch n 3"],
    labels: Int[Tensor, "batch"],
) -> Float[Tensor, "batch n"]:
    """Log-likelihood of the true class by the auxiliary classifier in each window; statistics stay as they are."""
    assert model.auxiliary_classifier is not None
    training = model.backbone.training
    model.backbone.eval()
    glimpses = model.glimpses(images, windows)
    features = model.backbone(glimpses.flatten(0, 1)).pooled
    model.backbone.train(training)
    return -step_losses(model.auxiliary_classifier(features).unflatten(0, glimpses.shape[:2]), labels)


def _distance(policy: Policy, state: GlimpseState, wanted: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
    """From what a policy chooses to what it should; 0 for a window that it may not choose.

    Of such a window the likelihood is no lesson: its gradient pushes down the scores of all that are allowed.
    """
    if isinstance(policy, StochasticPolicy):
        distribution = policy.distribution(state)
        return -distribution.log_probability(wanted) * distribution.may_choose(wanted)
    return (policy(state) - wanted).square().sum(1)


def _drawn(model: GlimpseNet, output: GlimpseOutput) -> tuple[StochasticPolicy, GlimpseState]:
    if not isinstance(model.policy, StochasticPolicy):
        raise ValueError(f"{type(model.policy).__name__} has no probabilities to learn by: use a stochastic policy")
    return model.policy, output.state


def _categorical(policy: StochasticPolicy, state: GlimpseState) -> CategoricalWindows:
    distribution = policy.distribution(state)
    if not isinstance(distribution, CategoricalWindows):
        raise ValueError(f"{type(policy).__name__} does not score windows: the value map needs the token policy")
    return distribution

"""Settings of training and of each kind of localization objective; free of torch."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from glimpsenet.errors import SettingError
from glimpsenet.kinds import Kind, Kinds, require

if TYPE_CHECKING:
    from glimpsenet.models.glimpsenet import GlimpseNet
    from glimpsenet.training.objectives import Objective

RewardName = Literal["evidence", "likelihood", "progress", "confidence"]
CONTENDERS = "glimpsenet.bench.contenders"


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Kind):
    """How the policy learns."""

    kinds: ClassVar["Kinds[ObjectiveConfig]"] = Kinds(
        "objective",
        {
            "pathwise": "glimpsenet.training.config:PathwiseConfig",
            "policy-gradient": "glimpsenet.training.config:PolicyGradientConfig",
            "value-map": "glimpsenet.training.config:ValueMapConfig",
            "boxes": "glimpsenet.training.config:BoxesConfig",
            "custom": "glimpsenet.training.config:CustomObjectiveConfig",
            # What `bench localization` compares with; of no use elsewhere.
            "feature-map": f"{CONTENDERS}:FeatureMapConfig",
            "guidance": f"{CONTENDERS}:GuidanceConfig",
            "listwise": f"{CONTENDERS}:ListwiseConfig",
            "oracle": f"{CONTENDERS}:OracleConfig",
            "ppo": f"{CONTENDERS}:PPOConfig",
        },
    )

    @abstractmethod
    def build(self, model: "GlimpseNet", scale_range: tuple[float, float]) -> "Objective":
        """The objective for a model.

        Args:
            model: whose policy is to learn.
            scale_range: smallest and largest s.

        Raises:
            SettingError: if the model's policy cannot learn by it.
        """

    def refuse(self, problem: str) -> NoReturn:
        """A model cannot learn by this objective.

        Raises:
            SettingError: always.
        """
        raise SettingError(f"objective '{self.kind}' {problem}")

    def check_windows(self, model: "GlimpseNet") -> None:
        """Refuse models without a window to choose.

        Raises:
            SettingError: for num_glimpses 1.
        """
        if model.num_glimpses == 1:
            self.refuse("needs windows, and num_glimpses is 1: choose objective 'pathwise'")

    def check_stochastic(self, model: "GlimpseNet") -> None:
        """Refuse policies without probabilities.

        Raises:
            SettingError: if windows are not drawn.
        """
        if not model.policy.stochastic:
            self.refuse("needs a policy with probabilities: policy 'tokens', or a policy with noise")

    def check_auxiliary(self, model: "GlimpseNet") -> None:
        """Refuse models without auxiliary classifier.

        Raises:
            SettingError: if there is none.
        """
        if model.auxiliary_classifier is None:
            self.refuse("reads the auxiliary classifier: set auxiliary_classifier")


def _check_weight(weight: float) -> None:
    require(0 <= weight < math.inf, f"objective weight must not be negative, got {weight}")


@dataclass(frozen=True, kw_only=True)
class PathwiseConfig(ObjectiveConfig):
    """The classification loss itself, through the sampling of the glimpses (MGNet, the report)."""

    kind = "pathwise"
    scale_penalty: float = 0.0
    """Weight of the mean scale of the windows, 0 or more; makes windows smaller."""
    overlap_penalty: float = 0.0
    """Weight of the mean overlap of the windows, 0 or more; drives windows apart."""
    large_until: float = 0.0
    """Share of the schedule, 0..1, over which windows shrink from the largest scale to their own."""
    gradient_share: float | None = None
    """Dynamic re-scaling: adapt the policy's gradient factor so that the norm of its gradient stays this share of all
    other weights'; above 0."""

    def __post_init__(self) -> None:
        for name in ("scale_penalty", "overlap_penalty"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} must not be negative, got {value}")
        require(0 <= self.large_until <= 1, f"large_until must be in 0..1, got {self.large_until}")
        share = self.gradient_share
        require(share is None or 0 < share < math.inf, f"gradient_share must be positive, got {share}")

    def build(self, model: "GlimpseNet", scale_range: tuple[float, float]) -> "Objective":
        """See :class:`ObjectiveConfig`."""
        from glimpsenet.training.objectives import Pathwise

        if not model.policy.differentiable and model.num_glimpses > 1:
            self.refuse(
                f"cannot teach {type(model.policy).__name__}, whose choices have no gradient: choose another objective"
            )
        if self.gradient_share is not None and model.policy.gradient_factor is None:
            self.refuse(f"has gradient_share {self.gradient_share:g}, but the policy's gradients are not re-scaled")
        return Pathwise(
            scale_range,
            self.scale_penalty,
            self.overlap_penalty,
            large_until=self.large_until,
            gradient_share=self.gradient_share,
        )


def _check_reward(config: ObjectiveConfig, reward: RewardName, model: "GlimpseNet") -> None:
    config.check_windows(model)
    config.check_stochastic(model)
    if reward in ("evidence", "likelihood"):
        config.check_auxiliary(model)


@dataclass(frozen=True, kw_only=True)
class ValueMapConfig(ObjectiveConfig):
    """Scores of windows learn to predict their rewards (ours)."""

    kind = "value-map"
    weight: float = 1.0
    """Weight of the objective's loss, added to the classification loss; 0 or more."""
    reward: RewardName = "evidence"
    """Reward of a window: evidence (log-likelihood of the class from the window alone, at least that of a guess),
    likelihood (the same without that floor), progress (fall of the loss) or confidence (rise of the class's
    probability)."""

    def __post_init__(self) -> None:
        _check_weight(self.weight)

    def build(self, model: "GlimpseNet", scale_range: tuple[float, float]) -> "Objective":
        """See :class:`ObjectiveConfig`."""
        from glimpsenet.training.objectives import ValueMap
        from glimpsenet.training.rewards import REWARDS

        _check_reward(self, self.reward, model)
        if not model.policy.scores_windows:
            self.refuse("needs scores of windows: policy 'tokens'")
        return ValueMap(scale_range, REWARDS[self.reward], weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(ObjectiveConfig):
    """REINFORCE with a learned baseline (RAM)."""

    kind = "policy-gradient"
    weight: float = 1.0
    """Weight of the objective's loss, added to the classification loss; 0 or more."""
    reward: RewardName = "evidence"
    """Reward of a window: evidence (log-likelihood of the class from the window alone, at least that of a guess),
    likelihood (the same without that floor), progress (fall of the loss) or confidence (rise of the class's
    probability)."""
    discount: float = 0.0
    """Discount of the rewards of later windows, 0..1."""
    entropy_weight: float = 0.0
    """Weight of the policy's entropy as a bonus, 0 or more."""

    def __post_init__(self) -> None:
        _check_weight(self.weight)
        require(0 <= self.discount <= 1, f"discount must be in 0..1, got {self.discount}")
        require(0 <= self.entropy_weight < math.inf, f"entropy_weight must not be negative, got {self.entropy_weight}")

    def build(self, model: "GlimpseNet", scale_range: tuple[float, float]) -> "Objective":
        """See :class:`ObjectiveConfig`."""
        from glimpsenet.training.objectives import PolicyGradient
        from glimpsenet.training.rewards import REWARDS

        _check_reward(self, self.reward, model)
        return PolicyGradient(
            scale_range,
            REWARDS[self.reward],
            model.classifier.in_features,
            weight=self.weight,
            discount=self.discount,
            entropy_weight=self.entropy_weight,
        )


@dataclass(frozen=True, kw_only=True)
class BoxesConfig(ObjectiveConfig):
    """Supervision by boxes, where they are known."""

    kind = "boxes"
    weight: float = 1.0
    """Weight of the objective's loss, added to the classification loss; 0 or more."""

    def __post_init__(self) -> None:
        _check_weight(self.weight)

    def build(self, model: "GlimpseNet", scale_range: tuple[float, float]) -> "Objective":
        """See :class:`ObjectiveConfig`."""
        from glimpsenet.training.objectives import BoxSupervision

        self.check_windows(model)
        return BoxSupervision(scale_range, weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class CustomObjectiveConfig(ObjectiveConfig):
    """An objective passed to ``fit``; it cannot be built from its name."""

    kind = "custom"

    def build(self, model: "GlimpseNet", scale_range: tuple[float, float]) -> "Objective":
        """See :class:`ObjectiveConfig`."""
        self.refuse("is an object, not a name: pass it to glimpsenet.fit(..., objective=...)")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation: one cycle of learning rate (Smith & Topin 2019) over the whole run."""

    epochs: int = 400
    """Passes over the training data, 1 or more; max_steps may end the run earlier."""
    max_steps: int | None = None
    """End the schedule after this many optimiser steps, whatever the epochs."""
    batch_size: int = 256
    """Images per step and device. MGNet divides its 256 among its devices: on four, use 64."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    learning_rate: float = 0.1
    """Peak learning rate, above 0."""
    weight_decay: float = 1e-4
    """Weight decay, 0 or more."""
    warmup_share: float = 0.2
    """Share of the schedule during which the learning rate rises, above 0 and below 1."""
    auxiliary_weight: float = 0.6
    """alpha, 0..1: weight of the auxiliary loss; the main loss has 1 - alpha."""
    auxiliary_decay: bool = False
    """Lower alpha linearly to 0 over the schedule."""
    diversity: float = 0.0
    """Share of windows drawn at random during training, 0..1."""
    diversity_until: float = 0.7
    """Share of the schedule after which no window is drawn at random, 0..1."""
    random_until: float = 0.0
    """Share of the schedule during which all windows are random, 0..1, so that the classifier learns to read first."""
    policy_learning_rate: float = 1.0
    """Learning rate of the policy, relative to that of the other weights, 0 or more."""
    gradient_clip: float | None = None
    """Clip the norm of all gradients to this, above 0."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 where the processor supports it, else float32."""
    workers: int = 0
    """Processes that read and augment images; 0 reads in the training process."""
    validations: int = 10
    """How often to validate and save during the run, 1 or more."""
    log_localization_statistics: bool = True
    """Write statistics of the localization network's weights, gradients and windows to localization.csv."""
    objective: ObjectiveConfig = PathwiseConfig()

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validations"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, got {value}")
        require(self.max_steps is None or self.max_steps >= 1, f"max_steps must be 1 or more, got {self.max_steps}")
        for name in ("auxiliary_weight", "diversity", "diversity_until", "random_until"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} must be in 0..1, got {value}")
        for name in ("policy_learning_rate", "weight_decay"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"{name} must not be negative, got {value}")
        require(0 < self.warmup_share < 1, f"warmup_share must be between 0 and 1, got {self.warmup_share}")
        require(self.workers >= 0, f"workers must not be negative, got {self.workers}")
        rate, clip = self.learning_rate, self.gradient_clip
        require(0 < rate < math.inf, f"learning_rate must be positive and finite, got {rate}")
        require(clip is None or clip > 0, f"gradient_clip must be positive, got {clip}")

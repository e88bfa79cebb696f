"""Settings of each kind of learned policy; imports no torch."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from glimpsenet.errors import SettingError
from glimpsenet.kinds import Kind, Kinds, require

if TYPE_CHECKING:
    from glimpsenet.policies.base import Policy
    from glimpsenet.policies.localization import Localization


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(Kind):
    """How the model chooses windows."""

    kinds: ClassVar["Kinds[PolicyConfig]"] = Kinds(
        "policy",
        {
            "linear": "glimpsenet.policies.config:LinearConfig",
            "spatiotemporal": "glimpsenet.policies.config:SpatiotemporalConfig",
            "tokens": "glimpsenet.policies.config:TokenConfig",
            "custom": "glimpsenet.policies.config:CustomPolicyConfig",
        },
    )

    described: ClassVar[str]
    """Its description in model cards."""

    @property
    def layers(self) -> list[int]:
        """Indices of the backbone's feature maps that the policy reads; negative ones count from the last."""
        return []

    @abstractmethod
    def build(
        self, *, width: int, map_channels: Sequence[int], image_size: int, scale_range: tuple[float, float]
    ) -> "Policy":
        """Build the policy.

        Args:
            width: channels of the fusion output.
            map_channels: channels of the feature maps named by ``layers``.
            image_size: side of the images in pixels.
            scale_range: smallest and largest s.
        """


def _check_localization(gradient_factor: float, noise: float) -> None:
    require(0 <= gradient_factor < math.inf, f"gradient_factor must not be negative, got {gradient_factor}")
    require(0 <= noise < math.inf, f"policy noise must not be negative, got {noise}")


def _with_noise(network: "Localization", noise: float) -> "Policy":
    from glimpsenet.policies.localization import GaussianPolicy

    return GaussianPolicy(network, noise) if noise else network


@dataclass(frozen=True, kw_only=True)
class LinearConfig(PolicyConfig):
    """MGNet's localization network: one linear layer on the fusion's output."""

    kind = "linear"
    described = "MGNet's localization network, from the fused features"
    gradient_factor: float = 0.02
    """Multiplies the gradients into the network; 0 or more."""
    noise: float = 0.0
    """Standard deviation of the normal noise added before the sigmoid while training; 0 for none."""

    def __post_init__(self) -> None:
        _check_localization(self.gradient_factor, self.noise)

    def build(
        self, *, width: int, map_channels: Sequence[int], image_size: int, scale_range: tuple[float, float]
    ) -> "Policy":
        """See :class:`PolicyConfig`."""
        from glimpsenet.policies.localization import LocalizationNetwork

        return _with_noise(LocalizationNetwork(width, scale_range, self.gradient_factor), self.noise)


@dataclass(frozen=True, kw_only=True)
class SpatiotemporalConfig(PolicyConfig):
    """The report's localization network: self-attention over the feature map tokens of all glimpses so far."""

    kind = "spatiotemporal"
    described = "the spatiotemporal localization network, by attention over feature map tokens"
    layer: int = -1
    """Index of the backbone's feature map that provides the tokens; -1 is the last."""
    gradient_factor: float = 0.02
    """Multiplies the gradients into the network; 0 or more."""
    noise: float = 0.0
    """Standard deviation of the normal noise added before the sigmoid while training; 0 for none."""

    def __post_init__(self) -> None:
        _check_localization(self.gradient_factor, self.noise)

    @property
    def layers(self) -> list[int]:
        """See :class:`PolicyConfig`."""
        return [self.layer]

    def build(
        self, *, width: int, map_channels: Sequence[int], image_size: int, scale_range: tuple[float, float]
    ) -> "Policy":
        """See :class:`PolicyConfig`."""
        from glimpsenet.policies.localization import SpatiotemporalLocalization

        network = SpatiotemporalLocalization(map_channels[0], image_size, scale_range, self.gradient_factor)
        return _with_noise(network, self.noise)


@dataclass(frozen=True, kw_only=True)
class TokenConfig(PolicyConfig):
    """The token policy: scores windows around every location of the feature maps of all glimpses so far (ours)."""

    kind = "tokens"
    described = "a token policy, which scores the locations of the feature maps"
    layer: int = -1
    """Index of the backbone's feature map that provides the tokens; -1 is the last."""
    scales: tuple[float, ...] = (0.3,)
    """Candidate scales s, each in 0..1; smaller values give smaller windows."""
    subcells: int = 1
    """Candidate centres along each side of a feature map cell, 1 or more."""
    max_overlap: float = 0.5
    """Largest overlap with earlier windows (intersection over union), 0..1; 1 allows any."""
    stop_gradient: bool = True
    """Keep the policy's gradients out of the features."""

    def __post_init__(self) -> None:
        require(
            len(self.scales) > 0 and all(0 < scale <= 1 for scale in self.scales),
            f"policy scales must be one or more values in 0..1, got {self.scales}",
        )
        require(self.subcells >= 1, f"subcells must be 1 or more, got {self.subcells}")
        require(0 <= self.max_overlap <= 1, f"max_overlap must be in 0..1, got {self.max_overlap}")

    @property
    def layers(self) -> list[int]:
        """See :class:`PolicyConfig`."""
        return [self.layer]

    def build(
        self, *, width: int, map_channels: Sequence[int], image_size: int, scale_range: tuple[float, float]
    ) -> "Policy":
        """See :class:`PolicyConfig`."""
        from glimpsenet.policies.token import TokenPolicy

        return TokenPolicy(
            map_channels[0],
            width,
            self.scales,
            subcells=self.subcells,
            max_overlap=self.max_overlap,
            stop_gradient=self.stop_gradient,
        )


@dataclass(frozen=True, kw_only=True)
class CustomPolicyConfig(PolicyConfig):
    """The policy of a model passed to ``fit``; it cannot be built by name."""

    kind = "custom"
    described = "a custom policy"

    def build(
        self, *, width: int, map_channels: Sequence[int], image_size: int, scale_range: tuple[float, float]
    ) -> "Policy":
        """See :class:`PolicyConfig`."""
        raise SettingError(
            "policy 'custom' is part of a model that was passed to fit: pass a model built the same way to"
            " glimpsenet.load_run(..., model=...)"
        )

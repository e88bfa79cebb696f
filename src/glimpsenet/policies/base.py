"""Where to look next: the interface of all policies.

a_1 = (1, 0, 0),   a_t = policy(state after t - 1 glimpses)
"""

import abc

from jaxtyping import Float
from torch import Tensor, nn

from glimpsenet import geometry
from glimpsenet.models.state import GlimpseState
from glimpsenet.policies.distributions import WindowDistribution

ScaleRange = tuple[float, float]
"""Smallest and largest scale s, 0 < s_min <= s_max <= 1."""


class Policy(nn.Module, abc.ABC):
    """Chooses the next window of each image from the state; the first is the whole image.

    Its attributes state what else objectives and tools can use.

    Example:
        >>> class TopLeft(glimpsenet.Policy):
        ...     def choose(self, state):
        ...         return state.images.new_tensor([0.25, -0.75, -0.75]).expand(len(state.images), 3)
        >>> model = glimpsenet.load("runs/digits")
        >>> out = model(model.normalization(torch.rand(2, 1, 80, 80)), policy=TopLeft())
        >>> out.windows[0, 1].tolist()
        [0.25, -0.75, -0.75]
    """

    stochastic: bool = False
    """Whether it samples windows in training, from :meth:`distribution`."""
    scores_windows: bool = False
    """Whether its distribution scores windows."""
    differentiable: bool = True
    """Whether gradients pass from its windows into its parameters."""
    gradient_factor: float | None = None
    """Factor on gradients into it; None if they pass unchanged."""
    stop_gradient: bool = False
    """Whether its gradients are kept out of the features."""

    @abc.abstractmethod
    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """The windows (s, tx, ty) of glimpse ``state.glimpse``, 2 or later."""

    def forward(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """The windows (s, tx, ty) of glimpse ``state.glimpse``."""
        return geometry.first_window(state.images) if state.glimpse == 1 else self.choose(state)

    def distribution(self, state: GlimpseState) -> WindowDistribution:
        """The distribution of window ``state.glimpse``; differentiable in the policy's parameters.

        Raises:
            TypeError: unless the policy is stochastic.
        """
        raise TypeError(f"{type(self).__name__} is not stochastic: it has no distribution")


class StochasticPolicy(Policy):
    """A policy that samples windows in training and takes the likeliest otherwise."""

    stochastic = True

    @abc.abstractmethod
    def distribution(self, state: GlimpseState) -> WindowDistribution:
        """See :class:`Policy`."""

    def choose(self, state: GlimpseState) -> Float[Tensor, "batch 3"]:
        """See :class:`Policy`."""
        distribution = self.distribution(state)
        return distribution.sample() if self.training else distribution.mode()

"""Distributions over windows, from which stochastic policies sample.

    categorical:   p(window n) = softmax(scores)_n
    Gaussian:      window = squash(sigmoid(mean + sigma e)),   e ~ N(0, 1)

Objectives use them for the probability of a window, whichever policy chose it. Sampling uses torch's global random
number generator.
"""

import abc
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class WindowDistribution(abc.ABC):
    """A distribution over the next window of each image of a batch."""

    @abc.abstractmethod
    def sample(self) -> Float[Tensor, "batch 3"]:
        """Sample a window."""

    @abc.abstractmethod
    def mode(self) -> Float[Tensor, "batch 3"]:
        """The window to choose outside training."""

    @abc.abstractmethod
    def explore(self) -> Float[Tensor, "batch 3"]:
        """A window drawn uniformly from all allowed ones, whatever their probability."""

    @abc.abstractmethod
    def log_probability(self, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        """Log-probability (or log-density) of a window."""

    def may_choose(self, window: Float[Tensor, "batch 3"]) -> Bool[Tensor, "batch"]:
        """Whether a window can be drawn at all."""
        return torch.ones_like(window[:, 0], dtype=torch.bool)

    @abc.abstractmethod
    def entropy(self) -> Float[Tensor, "batch"]:
        """Entropy in nats."""

    def score(self, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        """The policy's score of a window.

        Raises:
            TypeError: for a distribution without scores.
        """
        raise TypeError(f"{type(self).__name__} does not score windows")


class CategoricalWindows(WindowDistribution):
    """Candidate windows for each image, each with a score.

    Args:
        windows: the candidates.
        scores: scores of the candidates; higher is likelier.
        allowed: which candidates can be chosen; if none can, all can.
    """

    def __init__(
        self,
        windows: Float[Tensor, "batch n 3"],
        scores: Float[Tensor, "batch n"],
        allowed: Bool[Tensor, "batch n"] | None = None,
    ):
        self.windows, self.scores = windows, scores
        self.allowed = torch.ones_like(scores, dtype=torch.bool) if allowed is None else allowed
        self.allowed = self.allowed | ~self.allowed.any(1, keepdim=True)
        # Not -inf: 0 x log 0 would become NaN in the backward pass.
        self.log_probabilities = scores.masked_fill(~self.allowed, -1e4).log_softmax(1)

    def sample(self) -> Float[Tensor, "batch 3"]:
        """See :class:`WindowDistribution`."""
        return self._pick(torch.multinomial(self.log_probabilities.exp(), 1)[:, 0])

    def mode(self) -> Float[Tensor, "batch 3"]:
        """See :class:`WindowDistribution`."""
        return self._pick(self.log_probabilities.argmax(1))

    def explore(self) -> Float[Tensor, "batch 3"]:
        """See :class:`WindowDistribution`."""
        return self._pick(torch.multinomial(self.allowed.float(), 1)[:, 0])

    def log_probability(self, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        """Log-probability of the candidate nearest to each window."""
        return self.log_probabilities.gather(1, self.nearest(window)[:, None])[:, 0]

    def may_choose(self, window: Float[Tensor, "batch 3"]) -> Bool[Tensor, "batch"]:
        """Whether the candidate nearest to each window is allowed."""
        return self.allowed.gather(1, self.nearest(window)[:, None])[:, 0]

    def score(self, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        """Score of the candidate nearest to each window."""
        return self.scores.gather(1, self.nearest(window)[:, None])[:, 0]

    def entropy(self) -> Float[Tensor, "batch"]:
        """See :class:`WindowDistribution`."""
        return -(self.log_probabilities.exp() * self.log_probabilities).sum(1)

    def nearest(self, window: Float[Tensor, "batch 3"]) -> Tensor:
        """Index of the candidate nearest to each window, in centre (in units of its side) and log scale."""
        with torch.no_grad():
            scale = self.windows[..., 0]
            shift = (self.windows[..., 1:] - window[:, None, 1:]).square().sum(-1) / (2 * scale).square()
            return (shift + (scale / window[:, None, 0]).log().square()).argmin(1)

    def _pick(self, index: Tensor) -> Float[Tensor, "batch 3"]:
        return self.windows[torch.arange(index.shape[0], device=index.device), index]


class GaussianWindows(WindowDistribution):
    """Normal distribution around a network's raw output, before the sigmoid that keeps windows inside the image.

    Args:
        mean: raw output.
        sigma: standard deviation, the same for s, tx and ty.
        scale_range: smallest and largest s.
    """

    def __init__(self, mean: Float[Tensor, "batch 3"], sigma: float, scale_range: tuple[float, float]):
        self.mean, self.sigma, self.scale_range = mean, sigma, scale_range

    def sample(self) -> Float[Tensor, "batch 3"]:
        """See :class:`WindowDistribution`; differentiable in the mean."""
        return squash_to_window((self.mean + self.sigma * torch.randn_like(self.mean)).sigmoid(), self.scale_range)

    def mode(self) -> Float[Tensor, "batch 3"]:
        """See :class:`WindowDistribution`."""
        return squash_to_window(self.mean.sigmoid(), self.scale_range)

    def explore(self) -> Float[Tensor, "batch 3"]:
        """See :class:`WindowDistribution`."""
        return squash_to_window(torch.rand_like(self.mean), self.scale_range)

    def log_probability(self, window: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch"]:
        """Log-density of the raw numbers that map to each window."""
        raw = unsquash(window.detach(), self.scale_range).logit(eps=1e-6)
        normal = -0.5 * ((raw - self.mean) / self.sigma).square() - math.log(self.sigma) - 0.5 * math.log(2 * math.pi)
        free = [0, 1, 2] if self.scale_range[0] < self.scale_range[1] else [1, 2]
        return normal[:, free].sum(1)

    def entropy(self) -> Float[Tensor, "batch"]:
        """See :class:`WindowDistribution`; entropy of the raw numbers."""
        free = 3 if self.scale_range[0] < self.scale_range[1] else 2
        each = 0.5 * math.log(2 * math.pi * math.e) + math.log(self.sigma)
        return self.mean.new_full((len(self.mean),), free * each)


def squash_to_window(raw: Float[Tensor, "*batch 3"], scale_range: tuple[float, float]) -> Float[Tensor, "*batch 3"]:
    """Numbers in [0, 1] -> a window inside the image, with its scale in the range."""
    smallest, largest = scale_range
    scale = smallest + (largest - smallest) * raw[..., :1]
    return torch.cat([scale, (2 * raw[..., 1:] - 1) * (1 - scale)], -1)


def unsquash(windows: Float[Tensor, "*batch 3"], scale_range: tuple[float, float]) -> Float[Tensor, "*batch 3"]:
    """The inverse of :func:`squash_to_window`; 0.5 for the scale if the range is a single value."""
    smallest, largest = scale_range
    scale = windows[..., :1]
    first = (scale - smallest) / (largest - smallest) if smallest < largest else torch.full_like(scale, 0.5)
    room = 1 - scale
    centre = torch.where(room > 0, windows[..., 1:] / room.clamp(min=1e-9), 0)
    return torch.cat([first, (centre + 1) / 2], -1)

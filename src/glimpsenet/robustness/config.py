"""What a model's robustness is tried with; free of torch."""

from dataclasses import dataclass
from typing import Literal

from glimpsenet.config import check_seed
from glimpsenet.data.config import CORRUPTIONS
from glimpsenet.errors import SettingError, did_you_mean
from glimpsenet.kinds import at_least

Attack = Literal["mgnet", "pgd", "score", "autoattack", "square", "unbounded"]
ATTACKS: tuple[Attack, ...] = ("mgnet", "pgd", "score", "autoattack", "square", "unbounded")
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is tried, and how hard."""

    images: int = 200
    """Drawn from the held-out images."""
    attacks: tuple[Attack, ...] = ATTACKS
    """mgnet is MGNet's protocol; the others are in pixel space and without the gradient factor."""
    eps: float = 4.0
    """Largest change of a pixel, of 255."""
    steps: int = 50
    """Of PGD."""
    restarts: int = 5
    """Of PGD, each from a random start."""
    queries: int = 1000
    """Answers that the Square attack asks for an image."""
    targets: int = 9
    """Classes that AutoAttack's targeted attacks aim at; most of the time goes there."""
    corruptions: tuple[str, ...] = CORRUPTIONS
    """ImageNet-C's; none by an empty list."""
    severities: tuple[int, ...] = SEVERITIES
    """1 to 5."""
    batch_size: int = 50
    """Images at a time."""
    seed: int = 0
    """Of the images drawn and of everything random."""

    def __post_init__(self):
        at_least(1, images=self.images, steps=self.steps, restarts=self.restarts, queries=self.queries)
        at_least(1, batch_size=self.batch_size, targets=self.targets)
        check_seed(self.seed)
        if not 0 < self.eps <= 255:
            raise SettingError(f"eps is of 255, above 0; got {self.eps:g}")
        if unknown := [name for name in self.corruptions if name not in CORRUPTIONS]:
            raise SettingError(f"no corruption '{unknown[0]}'; {did_you_mean(unknown[0], CORRUPTIONS)}")
        if not self.severities or not set(self.severities) <= set(SEVERITIES):
            raise SettingError(f"severities are 1 to 5, got {' '.join(map(str, self.severities))}")

"""Settings of `glimpsenet bench robustness`; imports no torch."""

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
    """Which attacks and corruptions are run, and how strong they are."""

    images: int = 200
    """Number of held-out images to draw."""
    attacks: tuple[Attack, ...] = ATTACKS
    """mgnet is MGNet's protocol; the others work in pixel space, without the gradient factor."""
    eps: float = 4.0
    """Largest change of a pixel, on the scale 0..255."""
    steps: int = 50
    """PGD steps."""
    restarts: int = 5
    """PGD restarts, each from a random start."""
    queries: int = 1000
    """Queries per image for the Square attack."""
    targets: int = 9
    """Target classes of AutoAttack's targeted attacks, which take most of the time."""
    corruptions: tuple[str, ...] = CORRUPTIONS
    """ImageNet-C corruptions to apply; an empty list for none."""
    severities: tuple[int, ...] = SEVERITIES
    """Severities of the corruptions, 1 to 5."""
    batch_size: int = 50
    """Images per batch."""
    seed: int = 0
    """Seed for drawing images and for everything else random."""

    def __post_init__(self):
        at_least(1, images=self.images, steps=self.steps, restarts=self.restarts, queries=self.queries)
        at_least(1, batch_size=self.batch_size, targets=self.targets)
        check_seed(self.seed)
        if not 0 < self.eps <= 255:
            raise SettingError(f"eps must be above 0 and at most 255, got {self.eps:g}")
        if unknown := [name for name in self.corruptions if name not in CORRUPTIONS]:
            raise SettingError(f"no corruption '{unknown[0]}'; {did_you_mean(unknown[0], CORRUPTIONS)}")
        if not self.severities or not set(self.severities) <= set(SEVERITIES):
            raise SettingError(f"severities must be 1 to 5, got {' '.join(map(str, self.severities))}")

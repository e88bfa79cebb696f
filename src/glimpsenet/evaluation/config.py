"""What a run is measured on, and how; free of torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glimpsenet.config import check_seed
from glimpsenet.kinds import at_least


@dataclass(frozen=True)
class EvaluationSettings:
    """What a run is measured on, and how."""

    data: Path | None = None
    """Another folder with val/CLASS/*.jpg (and test/CLASS/*.jpg, boxes.csv)."""
    split: Literal["val", "test"] | None = None
    """Images to measure on; test if None and there are any. The checkpoint was chosen on val: figures from there are
    optimistic."""
    batch_size: int = 64
    """Images at a time."""
    workers: int = 0
    """Processes that read images."""
    seed: int = 0
    """Of random windows."""
    skip_bad: bool = False
    """Skip unreadable images, and count them."""

    def __post_init__(self):
        at_least(1, batch_size=self.batch_size)
        at_least(0, workers=self.workers)
        check_seed(self.seed)

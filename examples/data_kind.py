"""A custom kind of data: grey images with a small bright square in the left or in the right half.

Run it: ``python examples/data_kind.py runs/halves``.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

import glimpsenet
from glimpsenet.data.config import DataConfig
from glimpsenet.data.sample import Index, Sample, Splits
from glimpsenet.data.streams import TrainingStream

CLASSES = ["left", "right"]


class Halves(Dataset[Sample]):
    """``count`` images of one split; seed and index determine label, box and pixels."""

    has_boxes = True

    def __init__(self, count: int, size: int, seed: int):
        self.count, self.size, self.seed = count, size, seed

    @property
    def labels(self) -> list[int]:
        """The class of each image."""
        return [index % 2 for index in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def stream(self, seed: int, **position: int) -> TrainingStream:
        """The order of indices in training: shuffled within each epoch."""
        return TrainingStream(len(self), seed, **position)

    def __getitem__(self, address: Index) -> Sample:
        _, index = address  # using the epoch as well would give new images each epoch
        draw = torch.Generator().manual_seed(self.seed * self.count + index)
        image = 0.2 * torch.rand(1, self.size, self.size, generator=draw)
        side, half = self.size // 8, self.size // 2
        x = int(torch.randint(half - side, (1,), generator=draw)) + half * (index % 2)
        y = int(torch.randint(self.size - side, (1,), generator=draw))
        image[:, y : y + side, x : x + side] = 1
        box = torch.tensor([x, y, x + side, y + side], dtype=torch.float32)
        return Sample(place=index, image=image, label=index % 2, box=box, photo_size=(self.size, self.size))


@dataclass(frozen=True, kw_only=True)
class HalvesConfig(DataConfig):
    """Bright squares in one half."""

    kind = "halves"
    images: int = 256
    """Images in the training split; val and test have a quarter of that each."""

    def open(self, image_size: int, seed: int, classes: list[str] | None, channels: int, *, train: bool) -> Splits:
        """The splits; ``classes`` and ``channels`` are a trained model's, if there is one."""
        sizes = {"train": self.images, "val": self.images // 4, "test": self.images // 4}
        parts = {name: Halves(count, image_size, place) for place, (name, count) in enumerate(sizes.items())}
        return Splits(**parts, classes=CLASSES, channels=1)

    @property
    def title(self) -> str:
        """Its name in model cards."""
        return "bright squares"


DataConfig.kinds["halves"] = HalvesConfig  # config.json names it: import this file before loading a run


def main(folder: str, steps: int = 100) -> None:
    """Train the recipe ``digits`` on it, load the run again, and print its test accuracy."""
    config = glimpsenet.recipe("digits")
    config = replace(config, data=HalvesConfig(), training=replace(config.training, max_steps=steps))
    summary = glimpsenet.fit(config, Path(folder))
    print(glimpsenet.load_run(folder).classes, "accuracy", summary["test_metrics"]["accuracy"])


if __name__ == "__main__":
    main(sys.argv[1])

"""Digit scenes: the smallest task in which looking at the right place decides.

    scene = clip(max(clutter patches, digit) + noise)

A black canvas; 8 patches of 7 x 7 pixels cut from random digits at random places; then the labelled digit, 16 x 16
pixels, at a random place; then Gaussian noise. At a first glimpse of 20 x 20 pixels an 80 px scene shows the digit as
4 x 4 pixels: enough to see that there is something, too little to read. The digits are scikit-learn's (Alpaydin &
Kaynak 1998), 8 x 8 enlarged bilinearly, so nothing is downloaded. 1,077 of them make training scenes, 360 validation
scenes and 360 test scenes.
"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from glimpsenet.data.config import DigitsConfig
from glimpsenet.data.sample import Index, Sample, Splits
from glimpsenet.data.streams import FreshStream
from glimpsenet.errors import UserError
from glimpsenet.files import make_aside

DIGIT_SIZE = 16
PATCH_SIZE = 7
Part = Literal["train", "test", "val"]
DIGITS_OF: dict[Part, slice] = {"train": slice(1077), "test": slice(1077, 1437), "val": slice(1437, None)}
"""Which of the 1,797 digits, in one fixed order, make the scenes of each split; no digit is in two of them."""
SPLIT_SEED = 0
SCENES_SEED = {"val": 1, "test": 2}
CHUNK = 256
"""Scenes drawn at once; sample i of an epoch is the same whatever the batch size, worker or process."""

CLASSES = [str(digit) for digit in range(10)]


@functools.cache
def load_digits(split: Part) -> tuple[np.ndarray, np.ndarray]:
    """Digits ``[n, 16, 16]`` in 0..1, float32, and their labels ``[n]``."""
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    small = torch.from_numpy(np.asarray(pixels) / 16).float().view(-1, 1, 8, 8)
    images = F.interpolate(small, size=(DIGIT_SIZE, DIGIT_SIZE), mode="bilinear", align_corners=False)[:, 0].numpy()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    chosen = order[DIGITS_OF[split]]
    return images[chosen], np.asarray(labels)[chosen]


def draw_scenes(
    rng: np.random.Generator,
    count: int,
    digits: np.ndarray,
    labels: np.ndarray,
    *,
    canvas: int = 80,
    num_clutter: int = 8,
    noise: float = 0.05,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scenes ``[count, canvas, canvas]`` in 0..1, labels ``[count]``, and the digits' pixel boxes ``[count, 4]``."""
    scenes = np.zeros((count, canvas, canvas), np.float32)
    scene = np.arange(count)[:, None, None]

    def square(corner: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Row and column indices of a square at each scene's own corner (x, y)."""
        steps = np.arange(size)
        return (corner[:, 1:] + steps)[:, :, None], (corner[:, :1] + steps)[:, None, :]

    def paste(pictures: np.ndarray, corner: np.ndarray) -> None:
        place = (scene, *square(corner, pictures.shape[-1]))
        scenes[place] = np.maximum(scenes[place], pictures)

    for _ in range(num_clutter):
        source = rng.integers(len(digits), size=count)[:, None, None]
        cut = rng.integers(DIGIT_SIZE - PATCH_SIZE + 1, size=(count, 2))
        paste(digits[(source, *square(cut, PATCH_SIZE))], rng.integers(canvas - PATCH_SIZE + 1, size=(count, 2)))
    chosen = rng.integers(len(digits), size=count)
    corner = rng.integers(canvas - DIGIT_SIZE + 1, size=(count, 2))
    paste(digits[chosen], corner)
    scenes += noise * rng.standard_normal(scenes.shape, dtype=np.float32)
    boxes = np.concatenate([corner, corner + DIGIT_SIZE], 1).astype(np.float32)
    return scenes.clip(0, 1), labels[chosen], boxes


class DigitScenes(Dataset[Sample]):
    """Digit scenes as a data set; training scenes are fresh every epoch, those of val and test always the same.

    Raises:
        UserError: if the canvas cannot hold a digit.
    """

    has_boxes = True

    def __init__(self, config: DigitsConfig, split: Part, canvas: int = 80, seed: int = 0):
        if canvas < DIGIT_SIZE:
            raise UserError(f"digit scenes need an image_size of {DIGIT_SIZE} or more, got {canvas}")
        self.config, self.split, self.canvas, self.seed = config, split, canvas, seed
        self._chunk: tuple[Index, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    @property
    def labels(self) -> list[int]:
        """The digit of each scene of epoch 0; draws them all."""
        chunks = range(-(-len(self) // CHUNK))
        return np.concatenate([self._draw(0, chunk)[1] for chunk in chunks])[: len(self)].tolist()

    def __len__(self) -> int:
        config = self.config
        return {"train": config.train_scenes, "val": config.val_scenes, "test": config.test_scenes}[self.split]

    def stream(self, seed: int, **position: int) -> FreshStream:
        """In plain order: every epoch's scenes are new."""
        return FreshStream(len(self), seed, **position)

    def __getitem__(self, address: Index) -> Sample:
        epoch, index = address
        # Scenes are drawn many at a time and asked for in order: the newest chunk is all there is to keep.
        key = (epoch if self.split == "train" else 0, index // CHUNK)
        if self._chunk is None or self._chunk[0] != key:
            self._chunk = key, self._draw(*key)
        scenes, labels, boxes = self._chunk[1]
        place = index % CHUNK
        return Sample(
            place=index,
            image=torch.from_numpy(scenes[place][None]),
            label=int(labels[place]),
            box=torch.from_numpy(boxes[place]),
            photo_size=(self.canvas, self.canvas),
        )

    def _draw(self, epoch: int, chunk: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        seed = [self.seed, 0] if self.split == "train" else [SCENES_SEED[self.split], 1]
        return draw_scenes(
            np.random.default_rng([*seed, epoch, chunk]),
            CHUNK,
            *load_digits(self.split),
            canvas=self.canvas,
            num_clutter=self.config.num_clutter,
            noise=self.config.noise,
        )


def open_digits(config: DigitsConfig, image_size: int, seed: int) -> Splits:
    """Scenes of the three splits on a canvas of ``image_size`` pixels."""
    train = DigitScenes(config, "train", image_size, seed)
    val, test = (DigitScenes(config, split, image_size) for split in ("val", "test"))
    return Splits(train, val, test, CLASSES, channels=1)


def write_scenes(folder: Path, config: DigitsConfig, image_size: int, seed: int) -> int:
    """Write scenes as an image folder: train/, val/ and test/DIGIT/*.png, boxes.csv; returns how many.

    Raises:
        UserError: if the folder exists and is not empty.
    """
    from PIL import Image

    rows = ["file,x0,y0,x1,y1"]
    with make_aside(folder) as aside:
        for split in DIGITS_OF:
            dataset = DigitScenes(config, split, image_size, seed)
            for index in range(len(dataset)):
                sample = dataset[0, index]
                file = aside / split / CLASSES[sample.label] / f"{index:05d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                assert sample.image is not None  # scenes are made, not read
                Image.fromarray(_to_bytes(sample.image[0])).save(file)
                rows.append(",".join([file.relative_to(aside).as_posix(), *(str(int(edge)) for edge in sample.box)]))
        (aside / "boxes.csv").write_text("\n".join(rows) + "\n")
    return len(rows) - 1


def _to_bytes(image: Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()

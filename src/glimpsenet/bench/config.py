"""What `glimpsenet bench` measures, and how often; free of torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from glimpsenet.config import Config
from glimpsenet.errors import SettingError
from glimpsenet.kinds import at_least
from glimpsenet.recipes import RECIPES

Mode = Literal["eager", "fast", "compiled"]
MODES: tuple[Mode, ...] = ("eager", "fast", "compiled")
Precision = Literal["float32", "bfloat16"]
Score = Literal["confidence", "margin"]


@dataclass(frozen=True)
class LocalizationTask:
    """What all methods of learning where to look share."""

    task: Literal["digits", "digits-far", "image-folder"] = "digits"
    """Recipe whose data, backbone and schedule all methods share."""
    data: Path | None = None
    """Image folder, for the task image-folder."""
    backbone: str | None = None
    """A timm model, for the task image-folder."""
    backbone_weights: Path | None = None
    """Weights it starts from."""
    max_steps: int | None = None
    """Optimiser steps of every method; the recipe's own if None."""

    def __post_init__(self):
        at_least(1, max_steps=1 if self.max_steps is None else self.max_steps)
        if self.task != "image-folder" and (self.data or self.backbone or self.backbone_weights):
            raise SettingError("data, backbone and backbone_weights belong to the task image-folder")

    @property
    def config(self) -> Config:
        """The recipe with these settings."""
        config = RECIPES[self.task]()
        config = config if self.data is None else config.with_data(self.data)
        chosen = {"backbone": self.backbone, "backbone_weights": self.backbone_weights}
        model = replace(config.model, **{name: value for name, value in chosen.items() if value is not None})
        return replace(config, model=model, training=self._schedule(config))

    def _schedule(self, config: Config) -> Any:
        return replace(config.training, max_steps=self.max_steps or config.training.max_steps)


@dataclass(frozen=True)
class SubjectSettings:
    """Sizes of a model that is made for measuring; a run has its own."""

    image_size: int | None = None
    """Side of the images in pixels; 224 if None."""
    glimpse_size: int | None = None
    """Side of a glimpse in pixels; 96 if None."""
    num_glimpses: int | None = None
    """Glimpses; 4 if None."""


@dataclass(frozen=True)
class SpeedSettings:
    """How speed is measured."""

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Images at a time."""
    modes: tuple[Mode, ...] = MODES
    """eager: as it is; fast: norms folded, channels last; compiled: fast through torch.compile (minutes)."""
    precision: Precision = "float32"
    """Of the matrix products of both, by autocast; MGNet's training step stays in float32."""
    training: int | None = None
    """Also time training steps of this many images, beside MGNet's recipe."""
    repetitions: int = 7
    """Of every measurement."""

    def __post_init__(self):
        training = 1 if self.training is None else self.training
        at_least(1, batch_sizes=self.batch_sizes, training=training, repetitions=self.repetitions)


@dataclass(frozen=True)
class ScalingSettings:
    """How cost is measured as images, glimpses and batches grow."""

    glimpses: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of glimpses, timed at the middle one of the batch sizes."""
    image_sizes: tuple[int, ...] = (224, 320, 448, 640)
    """Sides of the images in pixels; glimpses stay as large as they are."""
    batch_sizes: tuple[int, ...] = (1, 4, 16)
    """Images at a time, at every image size."""
    mode: Mode = "fast"
    """Of both; eager: as it is; fast: norms folded, channels last; compiled: fast through torch.compile."""
    repetitions: int = 7
    """Of every measurement."""

    def __post_init__(self):
        at_least(1, glimpses=self.glimpses, image_sizes=self.image_sizes)
        at_least(1, batch_sizes=self.batch_sizes, repetitions=self.repetitions)


@dataclass(frozen=True)
class EarlyExitSettings:
    """How early exit is calibrated and measured."""

    within: float = 0.002
    """How far below all glimpses the accuracy may fall, 0..1, in 19 of 20 calibrations."""
    score: Score = "confidence"
    """What thresholds are compared with: the answer's probability, or its distance from the second."""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Images at a time."""
    scenes: int = 10_000
    """Digit scenes to calibrate on, and as many to test on; other data are used whole."""
    timed: int = 1000
    """Test images to time."""
    blocks: int = 10
    """Parts of these; each is one repetition."""

    def __post_init__(self):
        at_least(1, batch_sizes=self.batch_sizes, scenes=self.scenes, timed=self.timed, blocks=self.blocks)
        if not 0 <= self.within < 1:
            raise SettingError(f"within is a share of the images, 0 or more and below 1; got {self.within:g}")

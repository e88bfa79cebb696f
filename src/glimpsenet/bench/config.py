"""Settings of `glimpsenet bench`: what it measures, and how often; imports no torch."""

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
    """What all policy-learning methods share."""

    task: Literal["digits", "digits-far", "image-folder"] = "digits"
    """Recipe that provides data, backbone and schedule for all methods."""
    data: Path | None = None
    """Image folder, for task image-folder only."""
    backbone: str | None = None
    """Name of a timm model, for task image-folder only."""
    backbone_weights: Path | None = None
    """File with initial backbone weights, for task image-folder only."""
    max_steps: int | None = None
    """Optimiser steps for each method; the recipe's number if None."""

    def __post_init__(self):
        at_least(1, max_steps=1 if self.max_steps is None else self.max_steps)
        if self.task != "image-folder" and (self.data or self.backbone or self.backbone_weights):
            raise SettingError("data, backbone and backbone_weights apply only to the task image-folder")

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
    """Sizes of a model built for measuring; a run already has its sizes."""

    image_size: int | None = None
    """Side of the images in pixels; 224 if None."""
    glimpse_size: int | None = None
    """Side of a glimpse in pixels; 96 if None."""
    num_glimpses: int | None = None
    """T, including the first glimpse; 4 if None."""


@dataclass(frozen=True)
class SpeedSettings:
    """How speed is measured."""

    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Batch sizes to measure."""
    modes: tuple[Mode, ...] = MODES
    """eager: unchanged; fast: batch norm folded, channels last; compiled: fast with torch.compile (takes minutes)."""
    precision: Precision = "float32"
    """Autocast precision of matrix products, for both models; MGNet's training step stays in float32."""
    training: int | None = None
    """Also time training steps with this batch size, against MGNet's recipe."""
    repetitions: int = 7
    """Repetitions of each measurement."""

    def __post_init__(self):
        training = 1 if self.training is None else self.training
        at_least(1, batch_sizes=self.batch_sizes, training=training, repetitions=self.repetitions)


@dataclass(frozen=True)
class ScalingSettings:
    """How scaling with image size, glimpses and batch size is measured."""

    glimpses: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of glimpses to time, at the middle one of the batch sizes."""
    image_sizes: tuple[int, ...] = (224, 320, 448, 640)
    """Sides of the images in pixels; the glimpse size stays the same."""
    batch_sizes: tuple[int, ...] = (1, 4, 16)
    """Batch sizes to time at each image size."""
    mode: Mode = "fast"
    """For both models; eager: unchanged; fast: batch norm folded, channels last; compiled: fast with torch.compile."""
    repetitions: int = 7
    """Repetitions of each measurement."""

    def __post_init__(self):
        at_least(1, glimpses=self.glimpses, image_sizes=self.image_sizes)
        at_least(1, batch_sizes=self.batch_sizes, repetitions=self.repetitions)


@dataclass(frozen=True)
class EarlyExitSettings:
    """How early exit is calibrated and measured."""

    within: float = 0.002
    """Largest loss of accuracy against all glimpses, 0..1; holds in 19 of 20 calibrations."""
    score: Score = "confidence"
    """What thresholds apply to: the answer's probability, or its margin over the second."""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Batch sizes to measure."""
    scenes: int = 10_000
    """Digit scenes for calibration, and as many for testing; other datasets are used in full."""
    timed: int = 1000
    """Number of test images to time."""
    blocks: int = 10
    """Parts into which the timed images are split; each is one repetition."""

    def __post_init__(self):
        at_least(1, batch_sizes=self.batch_sizes, scenes=self.scenes, timed=self.timed, blocks=self.blocks)
        if not 0 <= self.within < 1:
            raise SettingError(f"within must be 0 or more and below 1 (a share of the images), got {self.within:g}")

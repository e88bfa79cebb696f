"""What the tools of inspection look at, and how closely; free of torch."""

from dataclasses import dataclass
from typing import Literal

LossName = Literal["last", "own", "auxiliary", "total"]
"""The loss whose derivative is taken: after the last glimpse, after the window's own, auxiliary, or training's."""
Generator = Literal["own", "bilinear", "mipmap", "linearized"]


@dataclass(frozen=True)
class Look:
    """Whose loss at an image is differentiated, and after which windows."""

    label: str | None = None
    """True class of the image, by name; if None, that of its folder, or else the predicted one."""
    loss: LossName = "last"
    """The loss whose derivative is taken: after the last glimpse, after the window's own, auxiliary, or training's."""
    set: tuple[str, ...] = ()
    """Windows to inject before, as GLIMPSE=s,tx,ty; later glimpses react."""
    allow_outside: bool = False
    """Accept windows that leave the image."""


@dataclass(frozen=True)
class SweepSettings:
    """What is swept."""

    glimpse: int = 2
    """Whose window; 1 is the first glimpse."""
    parameter: Literal["s", "tx", "ty", "all"] = "all"
    """s, tx, ty or all."""
    points: int = 200
    """How many."""


@dataclass(frozen=True)
class FieldSettings:
    """Which losses are drawn over places."""

    glimpse: int = 2
    """Whose window; 1 is the first glimpse."""
    points: int = 21
    """Places a side."""
    scale: float | None = None
    """s of the window; what the model chose if None."""


@dataclass(frozen=True)
class QualitySettings:
    """Which gradients are measured, and how."""

    generators: tuple[Generator, ...] = ("own",)
    """How windows are sampled while measuring; "own" is the run's way."""
    images: int = 50
    """How many, spread over classes."""
    glimpse: int = 2
    """Whose window, 2 for the first window."""
    points: int = 100
    """Of each sweep."""
    loss: LossName = "last"
    """Whose derivative."""
    policy: Literal["learned", "random", "oracle"] = "learned"
    """Around which windows: the model's, random ones (the same for all runs), or the boxes."""
    seed: int = 0
    """Of the choice of images, of random windows and of confidence intervals."""

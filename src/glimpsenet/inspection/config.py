"""Settings of the inspection tools; imports no torch."""

from dataclasses import dataclass
from typing import Literal

LossName = Literal["last", "own", "auxiliary", "total"]
"""Loss to differentiate: after the last glimpse, after the window's own, auxiliary, or total (training's)."""
Generator = Literal["own", "bilinear", "mipmap", "linearized"]


@dataclass(frozen=True)
class Look:
    """Which loss is differentiated for an image, with which windows."""

    label: str | None = None
    """Name of the image's true class; if None, the folder's class, or else the predicted one."""
    loss: LossName = "last"
    """Loss to differentiate: after the last glimpse, after the window's own, auxiliary, or total (training's)."""
    set: tuple[str, ...] = ()
    """Windows to inject first, as GLIMPSE=s,tx,ty; later glimpses react."""
    allow_outside: bool = False
    """Accept windows that extend outside the image."""


@dataclass(frozen=True)
class SweepSettings:
    """What to sweep."""

    glimpse: int = 2
    """Glimpse whose window is moved; 1 is the first glimpse."""
    parameter: Literal["s", "tx", "ty", "all"] = "all"
    """Parameter to sweep: s, tx, ty or all."""
    points: int = 200
    """Number of points."""


@dataclass(frozen=True)
class FieldSettings:
    """Where a window's loss is evaluated."""

    glimpse: int = 2
    """Glimpse whose window is moved; 1 is the first glimpse."""
    points: int = 21
    """Positions along each side of the grid."""
    scale: float | None = None
    """Scale s of the window; the model's choice if None."""


@dataclass(frozen=True)
class QualitySettings:
    """How the quality of gradients is measured."""

    generators: tuple[Generator, ...] = ("own",)
    """How windows are sampled while measuring; "own" keeps the run's sampling."""
    images: int = 50
    """Number of images, spread over classes."""
    glimpse: int = 2
    """Glimpse whose window is measured, 2 for the first window."""
    points: int = 100
    """Points in each sweep."""
    loss: LossName = "last"
    """Loss to differentiate."""
    policy: Literal["learned", "random", "oracle"] = "learned"
    """Windows to measure around: the model's, random ones (the same for all runs), or those on the boxes."""
    seed: int = 0
    """Seed for the choice of images, random windows and confidence intervals."""

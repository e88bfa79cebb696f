"""Injection: windows given as text, and checked (Supeene & Wang, 4.2).

    2=0.3,-0.5,0.1     window of glimpse 2: s = 0.3, tx = -0.5, ty = 0.1

Later glimpses react to what the injected window shows.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.errors import OutsideError, SettingError
from glimpsenet.inspection.scanpath import Scanpaths, scanpaths
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.baselines import FixedGlimpses

Windows = dict[int, tuple[float, float, float]]
"""Glimpse (1 is the first glimpse) -> (s, tx, ty)."""


def inject(
    model: GlimpseNet, image: Tensor, windows: Windows, *, label: int | None = None, classes: list[str] | None = None
) -> Scanpaths:
    """Two scanpaths of one image: with the model's own windows (first row) and with ``windows`` injected (second row).

    Args:
        model: set to evaluation mode.
        image: ``[channel, size, size]``, uint8 or 0..1; not normalised.
        windows: windows to inject; the model chooses the others.
        label: the true class, if known.
        classes: class names; class numbers if None.

    Raises:
        ValueError: for a glimpse that the model does not take.
    """
    if beyond := [glimpse for glimpse in windows if not 1 <= glimpse <= model.num_glimpses]:
        raise ValueError(f"no glimpse {beyond[0]}: the model takes glimpses 1 to {model.num_glimpses}")
    ways = {"the model's windows": None, "with yours": FixedGlimpses(windows, otherwise=model.policy)}
    labels = None if label is None else [label]
    own, changed = (
        scanpaths(model, image[None], labels=labels, classes=classes, names=[name], policy=policy).rows[0]
        for name, policy in ways.items()
    )
    return Scanpaths([own, replace(changed, yours=frozenset(windows))])


def parse_windows(texts: Sequence[str], num_glimpses: int, *, allow_outside: bool = False) -> Windows:
    """``GLIMPSE=s,tx,ty`` texts -> windows.

    Args:
        texts: one per glimpse.
        num_glimpses: T of the model.
        allow_outside: accept windows that extend outside the image.

    Raises:
        SettingError: for an invalid text; gives the text and the reason.
    """
    windows: Windows = {}
    for text in texts:
        try:
            glimpse_text, _, numbers = text.partition("=")
            glimpse = int(glimpse_text)
            s, tx, ty = (float(number) for number in numbers.split(","))
        except ValueError:
            raise SettingError(f"cannot read the window '{text}': use GLIMPSE=s,tx,ty, e.g. 2=0.3,-0.5,0.1") from None
        if not 1 <= glimpse <= num_glimpses:
            raise SettingError(f"'{text}': no glimpse {glimpse}: the model takes glimpses 1 to {num_glimpses}")
        if glimpse in windows:
            raise SettingError(f"'{text}': glimpse {glimpse} is already set")
        if s <= 0 or not all(map(math.isfinite, (s, tx, ty))):
            raise SettingError(f"'{text}': a window needs a scale above 0 and finite numbers")
        if not allow_outside and not bool(geometry.lies_inside(torch.tensor([s, tx, ty]))):
            raise OutsideError(f"'{text}' extends outside the image: |tx| and |ty| must be at most 1 - s = {1 - s:.3g}")
        windows[glimpse] = (s, tx, ty)
    return windows

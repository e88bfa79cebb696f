"""Scanpath figures: windows, crops and the answer after each glimpse (fig. 3 of Supeene & Wang, with answers added)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from glimpsenet.data.spread import spread_over_folders
from glimpsenet.errors import UnreadableImageError
from glimpsenet.inference import ExitRule, Prediction, Unreadable, predict
from glimpsenet.inference.early_exit import NEVER
from glimpsenet.inference.files import true_class
from glimpsenet.inspection.figures import as_shown, draw_window, frame, glimpse_color, label, save_result, show_image
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.base import Policy
from glimpsenet.runs import Run

MAX_ROWS = 6
"""With more images, the figure would not fit a screen or page."""


@dataclass(frozen=True)
class Scanpath:
    """The scanpath of one image; glimpse 1 is the first glimpse."""

    name: str
    image: Float[Tensor, "channel size size"]
    """0..1."""
    crops: Float[Tensor, "glimpse channel g g"]
    """The crops, 0..1."""
    windows: Float[Tensor, "glimpse 3"]
    """The windows (s, tx, ty)."""
    probabilities: Float[Tensor, "glimpse class_"]
    """Probabilities after each glimpse."""
    classes: list[str]
    label: str | None
    """The true class; None if unknown."""
    yours: frozenset[int] = frozenset()
    """Glimpses whose windows were injected."""

    def top(self, glimpse: int, count: int = 1) -> list[tuple[str, float]]:
        """The likeliest classes after ``glimpse`` (1 the first; -1 the last), with their probabilities."""
        values, places = self.probabilities[glimpse - 1 if glimpse > 0 else glimpse].topk(min(count, len(self.classes)))
        return [(self.classes[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]


@dataclass(frozen=True)
class Scanpaths:
    """Scanpaths of several images, or several scanpaths of one."""

    rows: list[Scanpath]

    def to_dict(self) -> list[dict[str, Any]]:
        """One row per image: name, true class, and for each glimpse the window (s, tx, ty) and class probabilities."""
        return [
            {
                "name": row.name,
                "label": row.label,
                "windows": row.windows.tolist(),
                "probabilities": [
                    dict(zip(row.classes, glimpse, strict=True)) for glimpse in row.probabilities.tolist()
                ],
            }
            for row in self.rows
        ]

    def plot(self, top: int = 3) -> Figure:
        """Plot one row per image (at most 6): image with windows, crops, ``top`` classes after each glimpse."""
        rows = self.rows[:MAX_ROWS]
        glimpses = max(len(row.windows) for row in rows)
        figure = Figure(figsize=(3.1 + 1.75 * glimpses, 2.8 * len(rows)))
        # The default hspace grows with the number of rows and would separate crops from their bars.
        figure.set_layout_engine("constrained", hspace=0)
        for place, row in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
            _plot_row(place, row, top)
        return figure

    def save(self, file: Path) -> None:
        """Write the numbers if the suffix is .json, else the picture."""
        save_result(file, self.plot, to_dict=self.to_dict)


def scanpaths(
    model: GlimpseNet,
    images: Tensor,
    *,
    labels: Sequence[int] | None = None,
    classes: list[str] | None = None,
    names: Sequence[str] | None = None,
    policy: Policy | None = None,
) -> Scanpaths:
    """Compute the scanpaths of images.

    Args:
        model: set to evaluation mode.
        images: ``[image, channel, size, size]``, uint8 or 0..1; not normalised.
        labels: true classes, if known.
        classes: class names; class numbers if None.
        names: names of the images; numbers from 1 if None.
        policy: overrides the model's policy.
    """
    classes = [str(place) for place in range(model.num_classes)] if classes is None else classes
    images = images.to(model.classifier.weight.device)
    model.eval()
    with torch.no_grad():
        output = model(model.normalization(images), policy=policy)
        shown = as_shown(images)
        seen = model.crops(shown.to(images.device), output.windows).cpu()
    windows, probabilities = output.windows.cpu(), output.logits.float().softmax(-1).cpu()
    return Scanpaths(
        [
            Scanpath(
                name=str(row + 1) if names is None else names[row],
                image=shown[row],
                crops=seen[row],
                windows=windows[row],
                probabilities=probabilities[row],
                classes=classes,
                label=None if labels is None else classes[labels[row]],
            )
            for row in range(len(images))
        ]
    )


def draw_files(run: Run, files: Sequence[Path], figure: Path, rule: ExitRule = NEVER) -> int:
    """Draw scanpaths of image files, MAX_ROWS at most, spread over their folders. Returns the number drawn.

    Raises:
        UserError: for a file that cannot be read.
    """
    drawn = spread_over_folders(files, MAX_ROWS, run.config.seed)
    found: list[Prediction] = []
    for prediction in predict(run, drawn, rule=rule):
        if isinstance(prediction, Unreadable):
            raise UnreadableImageError(prediction.problem)
        found.append(prediction)
    gather(found).save(figure)
    return len(drawn)


def gather(predictions: Sequence[Prediction]) -> Scanpaths:
    """Predictions of image files as scanpaths; the true class is the folder's name, if the model has that class."""
    return Scanpaths(
        [
            Scanpath(
                name=prediction.file.name,
                image=prediction.image,
                crops=prediction.crops,
                windows=prediction.windows,
                probabilities=prediction.probabilities,
                classes=prediction.classes,
                label=true_class(prediction.file, prediction.classes),
            )
            for prediction in predictions
        ]
    )


def _plot_row(figure: SubFigure, row: Scanpath, top: int) -> None:
    glimpses = len(row.windows)
    grid = figure.add_gridspec(2, glimpses + 1, width_ratios=[1.75, *[1] * glimpses], height_ratios=[1.3, 1])
    whole = figure.add_subplot(grid[:, 0])
    show_image(whole, row.image)
    for glimpse in range(1, glimpses + 1):
        if glimpse > 1 or glimpse in row.yours:  # glimpse 1 is the whole image, unless injected
            draw_window(whole, row.windows[glimpse - 1], row.image.shape[-1], glimpse, yours=glimpse in row.yours)
    said, probability = row.top(-1)[0]
    title = whole.set_title(f"{label(said, 26)}  {probability:.0%}", fontsize=11, fontweight="bold")
    if row.label not in (None, said):
        title.set(text=f"wrong: {label(said, 20)}  {probability:.0%}", color="white")
        title.set_bbox({"facecolor": "black", "pad": 2.5})
    truth = "" if row.label is None else f"\ntrue class: {label(row.label, 26)}"
    whole.set_xlabel(f"{label(row.name, 34)}{truth}", fontsize=8.5)
    for glimpse in range(1, glimpses + 1):
        axes = figure.add_subplot(grid[0, glimpse])
        show_image(axes, row.crops[glimpse - 1])
        frame(axes, glimpse, yours=glimpse in row.yours)
        note = " · yours" if glimpse in row.yours else " · first glimpse" if glimpse == 1 else ""
        axes.set_title(f"{glimpse}{note}", fontsize=10)
        _plot_classes(figure.add_subplot(grid[1, glimpse]), row.top(glimpse, top), glimpse)


def _plot_classes(axes: Axes, ranking: list[tuple[str, float]], glimpse: int) -> None:
    """Draw probability bars, 0..1, each below its class's name."""
    places = range(len(ranking))
    axes.barh(places, 1, color="#EEEEEE", height=0.34)
    axes.barh(places, [value for _, value in ranking], color=glimpse_color(glimpse), height=0.34)
    for place, (name, value) in zip(places, ranking, strict=True):
        axes.text(0, place - 0.22, label(name, 18), va="bottom", fontsize=8.5)
        axes.text(1, place - 0.22, f"{value:.0%}", va="bottom", ha="right", fontsize=8.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ranking) - 0.7, -0.75)
    axes.set_yticks([])
    axes.set_xticks([0, 1], ["0", "1"], fontsize=8)
    axes.set_xlabel("probability", fontsize=8, labelpad=-7)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)

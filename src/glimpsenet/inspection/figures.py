"""What all figures share: colours, sizes, and drawing of pictures and windows.

Each glimpse has one colour throughout, from the palette of Okabe & Ito (2008), which colour-blind people can tell
apart; the glimpse's number is always drawn beside it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.errors import UserError, printable
from glimpsenet.files import write_aside, write_json
from glimpsenet.inspection.fonts import readable_text

PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#0072B2", "#F0E442", "#7F7F7F")
DPI = 110
DASHES = (0, (3, 1.5))


def glimpse_color(glimpse: int) -> str:
    """The colour of glimpse 1, 2, ...; colours repeat after 8."""
    return PALETTE[(glimpse - 1) % len(PALETTE)]


def as_shown(image: Tensor) -> Tensor:
    """One or several raw images (uint8 or 0..1) -> 0..1 on the CPU, for drawing."""
    return (image.float() / 255 if image.dtype == torch.uint8 else image).cpu()


def show_image(axes: Axes, image: Float[Tensor, "channel height width"], **settings: Any) -> None:
    """Draw an image in 0..1, grey or colour, in pixel coordinates, without ticks."""
    picture = image.clamp(0, 1).permute(1, 2, 0).numpy()
    height, width = picture.shape[:2]
    axes.imshow(
        picture.squeeze(-1) if picture.shape[-1] == 1 else picture,
        cmap="gray",
        vmin=0,
        vmax=1,
        extent=(0, width, height, 0),
        interpolation="nearest",
        **settings,
    )
    axes.set_xticks([])
    axes.set_yticks([])


def draw_window(axes: Axes, window: Float[Tensor, "3"], image_size: int, glimpse: int, *, yours: bool = False) -> None:
    """Draw a window's outline with its glimpse's number; dashed if it was injected, as on the demo page."""
    x0, y0, x1, y1 = geometry.window_to_box(window, image_size).tolist()
    inset = image_size * 0.006
    color = glimpse_color(glimpse)
    axes.add_patch(
        Rectangle(
            (x0 + inset, y0 + inset),
            x1 - x0 - 2 * inset,
            y1 - y0 - 2 * inset,
            fill=False,
            edgecolor=color,
            linewidth=2.2,
            linestyle=DASHES if yours else "-",
        )
    )
    axes.text(
        *_place_label(axes, x0 + 2 * inset, y0, y1, image_size),
        str(glimpse),
        color="black",
        fontsize=9,
        fontweight="bold",
        ha="left",
        va="center",
        zorder=5,  # above arrows
        bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
    )


def _place_label(axes: Axes, x: float, top: float, bottom: float, image_size: int) -> tuple[float, float]:
    """Left end and middle of a window's label: above the window, else below, so that it hides nothing inside; inside if
    there is no other room. It moves right to avoid other labels.
    """
    width, height = 0.06 * image_size, 0.09 * image_size
    inside = top + height / 2
    y = top - height / 2 if top >= height else bottom + height / 2 if bottom + height <= image_size else inside
    others = [text.get_position() for text in axes.texts]
    while any(abs(x - other_x) < 0.99 * width and abs(y - other_y) < height for other_x, other_y in others):
        x += width
    return x, y


def label(name: str, length: int | None = None) -> str:
    """A file or class name as a label: at most ``length`` characters, never parsed as a formula."""
    text = printable(name)
    short = text if length is None or len(text) <= length else text[: length - 1] + "…"
    return short.replace("$", r"\$")


def frame(axes: Axes, glimpse: int, *, yours: bool = False) -> None:
    """Frame a crop in its glimpse's colour, in the style of :func:`draw_window`."""
    for spine in axes.spines.values():
        spine.set_edgecolor(glimpse_color(glimpse))
        spine.set_linewidth(2.5)
        spine.set_linestyle(DASHES if yours else "-")


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure in the suffix's format (png, pdf, svg); creates the folder if needed.

    Warns:
        FigureWarning: if some of its characters are in no installed font.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(file) as aside, readable_text(figure):
        figure.savefig(aside, format=file.suffix.removeprefix(".") or "png", dpi=DPI, facecolor="white")


def save_result(
    file: Path,
    plot: Callable[[], Figure],
    *,
    to_dict: Callable[[], Any] | None = None,
    to_csv: Callable[[], str] | None = None,
) -> None:
    """Write what the suffix names: numbers for .json and .csv if available, else the picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".json" and to_dict is not None:
        write_json(file, to_dict())
    elif file.suffix == ".csv" and to_csv is not None:
        with write_aside(file) as aside:
            aside.write_text(to_csv())
    else:
        save_figure(plot(), file)


def save_confusion(matrix: list[list[int]] | None, classes: list[str], file: Path) -> None:
    """Plot a confusion matrix.

    Raises:
        UserError: if it was not kept because there are too many classes.
    """
    if matrix is None:
        raise UserError(f"a confusion matrix of {len(classes)} classes is too large to draw")
    save_figure(plot_confusion(matrix, classes), file)


def plot_confusion(matrix: list[list[int]], classes: list[str]) -> Figure:
    """Draw the confusion matrix: rows true, columns predicted, colours shares of the true class, with counts."""
    counts = np.array(matrix)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    side = 2.5 + 0.32 * len(classes)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks, names = range(len(classes)), [label(name) for name in classes]
    axes.set_xticks(ticks, names, rotation=90, fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) <= 30:
        for row, column in zip(*counts.nonzero(), strict=True):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    return figure

"""Scanpaths as pictures: where the model looked, what it saw there, what it thought after each look."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glimpsenet.inference import Prediction
from glimpsenet.inspection.figures import draw_window, frame, show_image, step_color

MAX_ROWS = 12
"""More images than this make a picture nobody can read."""


def plot_scanpaths(predictions: Sequence[Prediction], top: int = 3) -> Figure:
    """One row an image (at most 12): the image with numbered windows, the glimpses, the ``top`` classes after each."""
    predictions = predictions[:MAX_ROWS]
    steps = len(predictions[0].affine)
    figure = Figure(figsize=(3.1 + 1.75 * steps, 3.1 * len(predictions) + 0.1), layout="constrained")
    rows = figure.subfigures(len(predictions), 1, squeeze=False)[:, 0]
    for row, prediction in zip(rows, predictions, strict=True):
        grid = row.add_gridspec(2, steps + 1, width_ratios=[1.75, *[1] * steps], height_ratios=[1.35, 1])
        whole = row.add_subplot(grid[:, 0])
        show_image(whole, prediction.image)
        for step in range(2, steps + 1):
            draw_window(whole, prediction.affine[step - 1], prediction.image.shape[-1], step)
        name, probability = prediction.top(-1)[0]
        whole.set_title(f"{_shorten(name, 26)}  {probability:.0%}", fontsize=10, fontweight="bold")
        whole.set_xlabel(_shorten(prediction.file.name, 34), fontsize=7)
        for step in range(1, steps + 1):
            glimpse = row.add_subplot(grid[0, step])
            show_image(glimpse, prediction.glimpses[step - 1])
            frame(glimpse, step)
            glimpse.set_title("1 · first look" if step == 1 else str(step), fontsize=9)
            _plot_classes(row.add_subplot(grid[1, step]), prediction.top(step, top), step)
    return figure


def _plot_classes(axes: Axes, ranking: list[tuple[str, float]], step: int) -> None:
    """Bars of probability, 0..1, with the classes' names inside."""
    places = range(len(ranking))
    axes.barh(places, [value for _, value in ranking], color=step_color(step), alpha=0.75, height=0.8)
    for place, (name, value) in zip(places, ranking, strict=True):
        axes.text(0.03, place, f"{_shorten(name, 17)}  {value:.0%}", va="center", fontsize=7.5)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(ranking) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xticks([0, 1], ["0", "1"], fontsize=7)
    axes.set_xlabel("probability", fontsize=7, labelpad=-6)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

"""Sweeps: one parameter of one window over its admissible range, all else fixed (Supeene & Wang, figs. 4-6).

    g(p) = dL/dp for p = s, tx or ty;   line of best fit g(p) ~ slope p + intercept

A useful signal slopes upward: left of the best position descent pushes right, right of it left. R^2 is the share of the
gradient's variance that the line explains; the localization network has to average out the rest.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.files import write_aside
from glimpsenet.inspection.arrows import draw_arrows
from glimpsenet.inspection.config import SweepSettings
from glimpsenet.inspection.figures import draw_window, glimpse_color, save_figure, save_result, show_image
from glimpsenet.inspection.gradients import Scene, WindowLoss, check_glimpse, last_loss, probe
from glimpsenet.policies.base import ScaleRange

Parameter = Literal["s", "tx", "ty"]
PARAMETERS: tuple[Parameter, ...] = ("s", "tx", "ty")


class NoRoomError(ValueError):
    """The parameter can take only one value."""


@dataclass(frozen=True)
class Sweep:
    """Loss and gradient along one parameter of one window."""

    parameter: Parameter
    glimpse: int
    values: Float[Tensor, "point"]
    loss: Float[Tensor, "point"]
    gradient: Float[Tensor, "point"]
    """dL/dp at each point."""
    windows: Float[Tensor, "point 3"]
    full_gradient: Float[Tensor, "point 3"]
    """dL/d(s, tx, ty) at each point, for arrows."""

    @property
    def verdict(self) -> str:
        """A line of text: the slope, whether it has the wanted sign, and R^2."""
        sign = "wanted sign" if self.has_wanted_sign else "wrong sign"
        return f"{self.parameter}: slope {self.slope:+.4g} ({sign}), R^2 {self.r_squared:.3f}"

    @property
    def slope(self) -> float:
        """Slope of the line of best fit through the gradient; wanted: positive."""
        return float(np.polyfit(self.values.double().numpy(), self.gradient.double().numpy(), 1)[0])

    @property
    def intercept(self) -> float:
        """Intercept of the line of best fit."""
        return float(np.polyfit(self.values.double().numpy(), self.gradient.double().numpy(), 1)[1])

    @property
    def r_squared(self) -> float:
        """Share of the gradient's variance that the line explains, 0..1; 0 for a constant gradient."""
        residual = self.gradient.double() - (self.slope * self.values.double() + self.intercept)
        total = (self.gradient.double() - self.gradient.double().mean()).square().sum()
        return float(1 - residual.square().sum() / total) if total > 0 else 0.0

    @property
    def has_wanted_sign(self) -> bool:
        """Whether descent pushes towards a best value overall."""
        return self.slope > 0

    def plot(self) -> Figure:
        """Plot the gradient with its line of best fit, and the loss below."""
        return plot_sweeps([self])

    def save(self, file: Path) -> None:
        """Write the numbers if the suffix is .csv, else the picture."""
        save_result(file, self.plot, to_csv=self.to_csv)

    def to_csv(self) -> str:
        """Columns glimpse, s, tx, ty, loss, dL/ds, dL/dtx, dL/dty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["glimpse", "s", "tx", "ty", "loss", "dL/ds", "dL/dtx", "dL/dty"])
        for window, loss, gradient in zip(self.windows, self.loss, self.full_gradient, strict=True):
            writer.writerow([self.glimpse, *(f"{v:.6g}" for v in (*window.tolist(), float(loss), *gradient.tolist()))])
        return text.getvalue()


def admissible_range(window: Float[Tensor, "3"], parameter: Parameter, scale_range: ScaleRange) -> tuple[float, float]:
    """The interval in which a parameter keeps the window inside the image and its scale in the range.

    Raises:
        NoRoomError: if the interval is a single value.
    """
    s, tx, ty = window.tolist()
    if parameter == "s":
        low, high = scale_range[0], min(scale_range[1], 1 - max(abs(tx), abs(ty)))
    else:
        low, high = s - 1, 1 - s
    if high - low < 1e-6:
        window_text = f"{s:.3g},{tx:.3g},{ty:.3g}"
        raise NoRoomError(f"no room to sweep {parameter}: the window {window_text} allows only {low:.3g}")
    return low, high


def sweep(
    scene: Scene,
    parameter: Parameter,
    *,
    glimpse: int = 2,
    points: int = 200,
    scale_range: ScaleRange,
    loss: WindowLoss = last_loss,
) -> Sweep:
    """Loss and gradient along ``parameter`` of the window of ``glimpse``.

    Args:
        scene: from :func:`glimpsenet.inspection.gradients.observe`.
        parameter: s, tx or ty.
        glimpse: glimpse whose window is swept; the others stay fixed.
        points: number of points, evenly spaced, including both ends.
        scale_range: smallest and largest s of the model's windows.
        loss: loss to differentiate.

    Raises:
        ValueError: for an unknown glimpse, no room, or fewer than two points.
    """
    check_glimpse(scene, glimpse)
    if points < 2:
        raise ValueError(f"a sweep needs two points or more, got {points}")
    low, high = admissible_range(scene.windows[glimpse - 1], parameter, scale_range)
    values = torch.linspace(low, high, points)
    windows = scene.windows[glimpse - 1].cpu().repeat(points, 1)
    column = PARAMETERS.index(parameter)
    windows[:, column] = values
    losses, gradients = (part.cpu() for part in probe(scene, glimpse, windows, loss))
    return Sweep(parameter, glimpse, values, losses, gradients[:, column], windows, gradients)


def sweep_all(
    scene: Scene, settings: SweepSettings | None = None, *, scale_range: ScaleRange, loss: WindowLoss = last_loss
) -> tuple[list[Sweep], list[str]]:
    """Sweep each parameter that has room; returns also why others were skipped.

    Args:
        scene: from :func:`glimpsenet.inspection.gradients.observe`.
        settings: what to sweep.
        scale_range: smallest and largest s of the model's windows.
        loss: loss to differentiate.

    Raises:
        ValueError: if no parameter has room; see also :func:`sweep`.
    """
    settings = settings or SweepSettings()
    limits = {"glimpse": settings.glimpse, "points": settings.points, "scale_range": scale_range}
    found: list[Sweep] = []
    refusals: list[str] = []
    for name in PARAMETERS if settings.parameter == "all" else (settings.parameter,):
        try:
            found.append(sweep(scene, name, **limits, loss=loss))
        except NoRoomError as error:
            refusals.append(str(error))
    if not found:
        raise ValueError("; ".join(refusals))
    return found, refusals


def save_sweeps(scene: Scene, sweeps: Sequence[Sweep], folder: Path, *, gif: bool = False) -> None:
    """Write a PNG and a CSV of each sweep, one PNG of all, and on request a GIF of the moving window."""
    for result in sweeps:
        for suffix in ("png", "csv"):
            result.save(folder / f"{result.parameter}.{suffix}")
        if gif:
            animate_sweep(scene, result, folder / f"{result.parameter}.gif")
    save_figure(plot_sweeps(sweeps), folder / "sweep.png")


def plot_sweeps(sweeps: Sequence[Sweep]) -> Figure:
    """Plot a column per sweep: the gradient with its line of best fit above, the loss below."""
    figure = Figure(figsize=(4.2 * len(sweeps), 4.8), layout="constrained")
    grid = figure.subplots(2, len(sweeps), squeeze=False, sharex="col")
    for column, result in enumerate(sweeps):
        _plot_gradient(grid[0, column], result)
        axes = grid[1, column]
        axes.plot(result.values.numpy(), result.loss.numpy(), color=glimpse_color(result.glimpse), linewidth=1.6)
        axes.set_xlabel(f"{result.parameter} of glimpse {result.glimpse} (normalised)")
        axes.set_ylabel("loss (nats)")
        axes.grid(alpha=0.3)
    return figure


def _plot_gradient(axes: Axes, result: Sweep) -> None:
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.plot(
        result.values.numpy(),
        result.gradient.numpy(),
        ".",
        markersize=3,
        color=glimpse_color(result.glimpse),
    )
    ends = result.values[[0, -1]].numpy()
    wanted = "wanted sign" if result.has_wanted_sign else "wrong sign"
    axes.plot(ends, result.slope * ends + result.intercept, color="black", linewidth=1.6)
    axes.set_title(f"line of best fit: slope {result.slope:+.3g} ({wanted}), R² {result.r_squared:.2f}", fontsize=9)
    axes.set_ylabel(f"dL/d{result.parameter} (nats)")
    axes.grid(alpha=0.3)


def animate_sweep(scene: Scene, result: Sweep, file: Path, frames: int = 40) -> None:
    """Write a GIF: the window moves over the image with its arrows, and the curve grows beside it.

    Args:
        scene: the scene that was swept.
        result: from :func:`sweep`.
        file: file to write, .gif.
        frames: most frames, evenly chosen.
    """
    largest = float(result.full_gradient.abs().amax())
    pictures = []
    for index in np.linspace(0, len(result.values) - 1, min(frames, len(result.values))).round().astype(int):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        show_image(left, scene.shown)
        draw_window(left, result.windows[index], scene.image_size, result.glimpse)
        box = geometry.window_to_box(result.windows[index], scene.image_size)
        draw_arrows(left, box, result.full_gradient[index], largest, result.glimpse)
        right.axhline(0, color="gray", linewidth=0.8)
        right.plot(
            result.values[: index + 1],
            result.gradient[: index + 1],
            ".",
            markersize=4,
            color=glimpse_color(result.glimpse),
        )
        right.set_xlim(float(result.values[0]), float(result.values[-1]))
        low, high = float(result.gradient.min()), float(result.gradient.max())
        margin = 0.05 * (high - low) + 1e-9
        right.set_ylim(low - margin, high + margin)
        right.set_xlabel(f"{result.parameter} of glimpse {result.glimpse} (normalised)")
        right.set_ylabel(f"dL/d{result.parameter} (nats)")
        right.grid(alpha=0.3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80, facecolor="white")
        pictures.append(Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE))
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(file) as aside:
        pictures[0].save(aside, format="GIF", save_all=True, append_images=pictures[1:], duration=100, loop=0)

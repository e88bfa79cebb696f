"""The localization network over training, from ``localization.csv`` (see ``training/statistics.py``).

    without gradient re-scaling the weights explode;   with the auxiliary loss s settles on one large value

So the report reads these curves (Supeene & Wang, sections 4.2 and 5.2.1). For one run, every tensor and glimpse is
drawn; for several runs, one colour each, the largest tensor and the mean over glimpses.
"""

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glimpsenet.errors import DamagedError, MissingError, SettingError
from glimpsenet.inspection.figures import PALETTE, glimpse_color, save_figure
from glimpsenet.runs import LOCALIZATION, LOCALIZATION_COLUMNS

OUTPUTS = {"s": "s (window's half side)", "tx": "tx (centre, x)", "ty": "ty (centre, y)"}


@dataclass(frozen=True)
class Series:
    """One tensor over training."""

    step: Float[np.ndarray, "point"]
    min: Float[np.ndarray, "point"]
    max: Float[np.ndarray, "point"]
    mean: Float[np.ndarray, "point"]
    std: Float[np.ndarray, "point"]

    @property
    def largest(self) -> Float[np.ndarray, "point"]:
        """The largest absolute value."""
        return np.maximum(np.abs(self.min), np.abs(self.max))


Tensors = Mapping[str, Series]


@dataclass(frozen=True)
class Statistics:
    """A run's series, by kind (weight, gradient, gradient_before_rescaling, output) and name."""

    series: Mapping[str, Tensors]

    def of(self, kind: str) -> Tensors:
        """All series of a kind; none if the run has none."""
        return self.series.get(kind, {})

    def outputs(self, name: str) -> dict[int, Series]:
        """glimpse -> s, tx or ty."""
        parts = ((key.rsplit("_", 1), series) for key, series in self.of("output").items())
        return {int(glimpse): series for (parameter, glimpse), series in parts if parameter == name}

    def plot(self) -> Figure:
        """Plot weights, gradients and outputs over time."""
        figure, axes = _panels([self])
        for panel, kind in _TENSOR_PANELS.items():
            for place, (tensor, series) in enumerate(self.of(kind).items()):
                _draw_magnitude(axes[panel], series.step, _magnitude(panel, series), _color(place), tensor)
        for name in OUTPUTS:
            for glimpse, series in self.outputs(name).items():
                band = (series.min, series.max, series.mean)
                _draw_band(axes[name], series.step, *band, glimpse_color(glimpse), f"glimpse {glimpse}")
        if "ty" in axes and next(iter(axes)) not in OUTPUTS:  # otherwise the shared legend already lists glimpses
            axes["ty"].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        return _finish(figure, axes)

    def save(self, file: Path) -> None:
        """Write the picture."""
        save_figure(self.plot(), file)


def plot_statistics(runs: Mapping[str, Statistics]) -> Figure:
    """Plot several runs together, one colour each: the largest tensor of each kind, and outputs over all glimpses.

    Args:
        runs: name in the legend -> statistics.
    """
    figure, axes = _panels(list(runs.values()))
    for place, (run, statistics) in enumerate(runs.items()):
        for panel, kind in _TENSOR_PANELS.items():
            if tensors := list(statistics.of(kind).values()):
                largest = _together(np.max, [_magnitude(panel, series) for series in tensors])
                _draw_magnitude(axes[panel], tensors[0].step[: len(largest)], largest, _color(place), run)
        for name in OUTPUTS:
            if glimpses := list(statistics.outputs(name).values()):
                low = _together(np.min, [series.min for series in glimpses])
                high = _together(np.max, [series.max for series in glimpses])
                mean = _together(np.mean, [series.mean for series in glimpses])
                _draw_band(axes[name], glimpses[0].step[: len(low)], low, high, mean, _color(place), run)
    return _finish(figure, axes)


def draw_statistics(runs: Sequence[Path], figure: Path) -> None:
    """Plot one run's statistics, or several together.

    Raises:
        UserError: for a run without statistics, or without runs.
    """
    if not runs:
        raise SettingError("no runs: name run folders")
    read = {os.path.normpath(run): read_statistics(run) for run in runs}
    save_figure(next(iter(read.values())).plot() if len(read) == 1 else plot_statistics(read), figure)


def read_statistics(run: Path) -> Statistics:
    """The statistics that a run recorded in training.

    Raises:
        UserError: if there are none (names the setting that records them), or the file is damaged (names the row).
    """
    file = run / LOCALIZATION
    if not run.is_dir():
        raise MissingError(f"no such run folder: {run}")
    if not file.is_file():
        raise MissingError(f"{run} has no {LOCALIZATION}: training writes it unless log_localization_statistics is off")
    with open(file, newline="", encoding="utf-8", errors="replace") as stream:
        rows = _read_rows(stream, file)
    if not rows:
        raise DamagedError(f"{file} has no rows yet: the run has not reached its first logged step")
    return Statistics({kind: {name: _series(points) for name, points in of.items()} for kind, of in rows.items()})


def _read_rows(stream: TextIO, file: Path) -> dict[str, dict[str, list[list[float]]]]:
    """kind -> name -> rows of numbers."""
    rows: dict[str, dict[str, list[list[float]]]] = {}
    reader = csv.reader(stream)
    header = next(reader, [])
    if tuple(header) != LOCALIZATION_COLUMNS:
        raise DamagedError(f"{file} is damaged: row 1 is not {','.join(LOCALIZATION_COLUMNS)}")
    for number, row in enumerate(reader, 2):
        try:
            step, kind, name, *values = row
            numbers = [float(int(step)), *map(float, values)]
            if len(row) != len(LOCALIZATION_COLUMNS):
                raise ValueError
            if kind == "output" and not re.fullmatch(r"(s|tx|ty)_\d+", name):
                raise ValueError
        except ValueError as error:
            raise DamagedError(f"{file} is damaged: row {number} is {','.join(row)[:80]!r}") from error
        rows.setdefault(kind, {}).setdefault(name, []).append(numbers)
    return rows


def _series(points: list[list[float]]) -> Series:
    return Series(*np.array(points, dtype=np.float64).T)


# ---- drawing -------------------------------------------------------------------------------------------------------

_TENSOR_PANELS = {
    "weight_std": "weight",
    "weight_largest": "weight",
    "gradient_before": "gradient_before_rescaling",
    "gradient_after": "gradient",
}
_TITLES = {
    "weight_std": "weights: standard deviation",
    "weight_largest": "weights: largest absolute value",
    "gradient_before": "gradients before re-scaling: largest absolute value",
    "gradient_after": "gradients after re-scaling: largest absolute value",
    **OUTPUTS,
}


def _panels(runs: Sequence[Statistics]) -> tuple[Figure, dict[str, Axes]]:
    """Axes for the series that any run has; some policies do not re-scale gradients and have no "before"."""
    names = [name for name, kind in _TENSOR_PANELS.items() if any(run.of(kind) for run in runs)]
    outputs = [name for name in OUTPUTS if any(run.outputs(name) for run in runs)]
    lines = [line for line in (names[:2], names[2:], outputs) if line]
    figure = Figure(figsize=(10.5, 2.87 * len(lines)), layout="constrained")
    grid = figure.add_gridspec(len(lines), 6)
    axes: dict[str, Axes] = {}
    for row, line in enumerate(lines):
        width = 6 // len(line)
        for place, name in enumerate(line):
            axes[name] = figure.add_subplot(grid[row, width * place : width * (place + 1)])
    for one, other in (("gradient_after", "gradient_before"), ("ty", "tx")):
        if {one, other} <= axes.keys():
            axes[one].sharey(axes[other])
    return figure, axes


def _magnitude(panel: str, series: Series) -> Float[np.ndarray, "point"]:
    return series.std if panel == "weight_std" else series.largest


def _together(reduce: Callable[..., np.ndarray], curves: Sequence[np.ndarray]) -> Float[np.ndarray, "point"]:
    """Reduce curves of one run; during training, some may lack the newest point."""
    shortest = min(map(len, curves))
    return reduce([curve[:shortest] for curve in curves], axis=0)


def _draw_magnitude(axes: Axes, step: np.ndarray, value: np.ndarray, color: str, label: str) -> None:
    axes.plot(step, np.where(np.isfinite(value), value, np.nan), color=color, linewidth=1.4, label=label)


def _draw_band(
    axes: Axes, step: np.ndarray, low: np.ndarray, high: np.ndarray, mean: np.ndarray, color: str, label: str
) -> None:
    """Draw edges rather than a filled band, since bands of several glimpses would hide each other."""
    for edge in (low, high):
        axes.plot(step, edge, color=color, linewidth=0.9, linestyle=(0, (4, 2)), alpha=0.8)
    axes.plot(step, mean, color=color, linewidth=2, label=label)


def _finish(figure: Figure, axes: Mapping[str, Axes]) -> Figure:
    """Set titles and scales, and one legend for all panels."""
    for name, panel in axes.items():
        panel.set_title(_TITLES[name], fontsize=9)
        panel.set_xlabel("training step", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
        if name.startswith("gradient"):
            panel.set_yscale("log", nonpositive="mask")
        elif name.startswith("weight"):
            panel.set_ylim(0, 1.08 * float(panel.dataLim.ymax) or 1)
    if "gradient_after" in axes and "gradient_before" not in axes:
        axes["gradient_after"].set_title("gradients: largest absolute value", fontsize=9)
    if "s" in axes:
        axes["s"].set_ylabel("mean; dashed: smallest, largest\n(normalised)", fontsize=8)
    handles, labels = next(iter(axes.values())).get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, fontsize=8)
    return figure


def _color(place: int) -> str:
    return PALETTE[place % len(PALETTE)]

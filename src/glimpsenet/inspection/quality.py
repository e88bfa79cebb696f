"""Gradient quality: measures, over many images, of how well a window's gradient points to better windows.

    wanted sign        share of sweeps whose line of best fit slopes upward; 0.5 is chance
    R^2                median share of the gradient's variance that this line explains
    cosine             mean of <g, dM/dp> / (|g| |dM/dp|), M the loss averaged over windows of 10% of the range
    signal to noise    median of max(var g - noise, 0) / noise,   noise = mean (g[i+1] - g[i])^2 / 2

g is the gradient along a sweep of p = s, tx or ty, one sweep per image. Supeene & Wang (section 5.2.3, figs. 4-6) judge
single sweeps by eye; these measures compare runs and glimpse generators. Each has a 95% interval over images: Wilson's
(1927) for the share, bootstrap percentiles (Efron 1979) for the others. Several models can be pooled: images are then
resampled within each model, so the interval covers only these models. The noise is estimated from successive
differences (von Neumann et al. 1941).
"""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from torch import Tensor

from glimpsenet.files import write_json
from glimpsenet.inspection.figures import PALETTE, save_figure, save_result
from glimpsenet.inspection.gradients import WindowLoss, check_glimpse, last_loss, observe
from glimpsenet.inspection.sweep import PARAMETERS, NoRoomError, Parameter, Sweep, sweep
from glimpsenet.intervals import bootstrap_interval, wilson_interval
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.models.sampling import GlimpseGenerator
from glimpsenet.policies.base import Policy, ScaleRange
from glimpsenet.tables import Table

SMOOTHING = 0.1
"""Width of the averaging of the loss, as a share of the range."""
FEWEST_POINTS = 20
"""With fewer points, a tenth of them would be fewer than three."""


class SweepQuality(NamedTuple):
    """The quality of one sweep."""

    wanted_sign: float
    r_squared: float
    cosine: float
    signal_to_noise: float


class Measure(NamedTuple):
    """How a measure is summarised over images, and drawn."""

    title: str
    summary: Callable[..., Any]
    """numpy.mean or numpy.median."""
    worthless: float
    """Its value for an uninformative gradient."""
    is_share: bool = False
    """Whether it is a share of sweeps, each counting 0 or 1."""


MEASURES = {
    "wanted_sign": Measure("share with the wanted sign", np.mean, 0.5, is_share=True),
    "r_squared": Measure("median R²", np.median, 0.0),
    "cosine": Measure("mean cosine to the smoothed slope", np.mean, 0.0),
    "signal_to_noise": Measure("median signal-to-noise ratio", np.median, 0.0),
}


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% confidence interval; NaN if too few images had room to sweep."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.2f}" + ("" if math.isnan(self.low) else f" ({self.low:.2f} to {self.high:.2f})")


@dataclass(frozen=True)
class ParameterQuality:
    """Gradient quality of one parameter."""

    parameter: Parameter
    num_sweeps: int
    num_left_out: int
    """Images whose window had no room to sweep."""
    wanted_sign: Estimate
    r_squared: Estimate
    cosine: Estimate
    signal_to_noise: Estimate
    sweeps: list[list[SweepQuality]] = dataclasses.field(repr=False)
    """The single sweeps behind the estimates, one list per model."""

    @property
    def estimates(self) -> dict[str, Estimate]:
        """Estimates by the names in ``MEASURES``."""
        return {name: getattr(self, name) for name in MEASURES}


@dataclass(frozen=True)
class GradientQuality:
    """Gradient quality of the window of one glimpse, over many images."""

    glimpse: int
    points: int
    num_images: int
    s: ParameterQuality
    tx: ParameterQuality
    ty: ParameterQuality

    @property
    def parameters(self) -> list[ParameterQuality]:
        """Quality by parameter: s, tx, ty."""
        return [self.s, self.tx, self.ty]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the single sweeps; None for unknown values."""
        values = dataclasses.asdict(self)
        for parameter in PARAMETERS:
            del values[parameter]["sweeps"]
        return _plain(values)

    def to_csv(self) -> str:
        """One row per parameter: parameter, glimpse, num_sweeps, num_left_out, then each measure with its interval."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        ends = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
        writer.writerow(["parameter", "glimpse", "num_sweeps", "num_left_out", *ends])
        for quality in self.parameters:
            numbers = [number for estimate in quality.estimates.values() for number in dataclasses.astuple(estimate)]
            cells = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
            writer.writerow([quality.parameter, self.glimpse, quality.num_sweeps, quality.num_left_out, *cells])
        return text.getvalue()

    def plot(self) -> Figure:
        """Plot each measure by parameter, with intervals."""
        return compare_qualities({f"glimpse {self.glimpse}": self})

    def save(self, file: Path) -> None:
        """Write the numbers if the suffix is .json or .csv, else the picture."""
        save_result(file, self.plot, to_dict=self.to_dict, to_csv=self.to_csv)


def gradient_quality(
    model: GlimpseNet,
    samples: Sequence[tuple[Tensor, int | None]],
    *,
    glimpse: int = 2,
    points: int = 100,
    scale_range: ScaleRange,
    loss: WindowLoss = last_loss,
    policy: Policy | Sequence[Policy] | None = None,
    generator: GlimpseGenerator | None = None,
    seed: int = 0,
) -> GradientQuality:
    """Sweep s, tx and ty of one window over many images and measure the gradients' quality.

    Args:
        model: set to evaluation mode; it may be frozen.
        samples: images (``[channel, size, size]``, uint8 or 0..1, not normalised) with labels; None for
            the predicted one.
        glimpse: glimpse whose window is swept.
        points: number of points in each sweep.
        scale_range: smallest and largest s of the model's windows.
        loss: loss to differentiate.
        policy: overrides the model's, one for all or one per sample; need not be differentiable.
        generator: overrides the model's generator.
        seed: seed of the bootstrap.

    Raises:
        ValueError: without samples, with fewer than 20 points, for a glimpse or a class that the model does not have.
    """
    if not samples:
        raise ValueError("gradient quality needs one image or more")
    if points < FEWEST_POINTS:
        raise ValueError(f"gradient quality needs {FEWEST_POINTS} points per sweep or more, got {points}")
    policies = policy if isinstance(policy, Sequence) else [policy] * len(samples)
    measured: dict[Parameter, list[SweepQuality]] = {parameter: [] for parameter in PARAMETERS}
    for (image, label), looking in zip(samples, policies, strict=True):
        scene = observe(model, image, label, policy=looking, generator=generator)
        check_glimpse(scene, glimpse)
        for parameter in PARAMETERS:
            try:
                result = sweep(scene, parameter, glimpse=glimpse, points=points, scale_range=scale_range, loss=loss)
            except NoRoomError:
                continue
            measured[parameter].append(measure(result))
    s, tx, ty = (summarize(parameter, [measured[parameter]], len(samples), seed) for parameter in PARAMETERS)
    return GradientQuality(glimpse, points, len(samples), s, tx, ty)


def pool(qualities: Sequence[GradientQuality], seed: int = 0) -> GradientQuality:
    """Pool several models, each measured on its own images, into one estimate.

    Args:
        qualities: one per model, with the same glimpse and points.
        seed: seed of the bootstrap.

    Raises:
        ValueError: if there are none, or they differ in glimpse or points.
    """
    if len({(quality.glimpse, quality.points) for quality in qualities}) != 1:
        raise ValueError("pooling needs one quality or more, all with the same glimpse and number of points")
    images = sum(quality.num_images for quality in qualities)
    groups = {p: [group for q in qualities for group in getattr(q, p).sweeps] for p in PARAMETERS}
    s, tx, ty = (summarize(parameter, groups[parameter], images, seed) for parameter in PARAMETERS)
    return GradientQuality(qualities[0].glimpse, qualities[0].points, images, s, tx, ty)


def measure(result: Sweep) -> SweepQuality:
    """The quality of one sweep of evenly spaced points."""
    gradient = result.gradient.double().numpy()
    return SweepQuality(
        wanted_sign=float(result.has_wanted_sign),
        r_squared=result.r_squared,
        cosine=_cosine_to_smoothed_slope(result.values.double().numpy(), result.loss.double().numpy(), gradient),
        signal_to_noise=_signal_to_noise(gradient),
    )


def _cosine_to_smoothed_slope(
    values: Float[np.ndarray, "point"], loss: Float[np.ndarray, "point"], gradient: Float[np.ndarray, "point"]
) -> float:
    """Cosine over the points whose averaging window lies within the sweep; 0 if either vector is zero."""
    half = max(1, round(SMOOTHING / 2 * (len(loss) - 1)))
    smoothed = np.convolve(loss, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
    inner = slice(half, len(loss) - half)
    slope, gradient = np.gradient(smoothed, values[inner], edge_order=2), gradient[inner]
    lengths = float(np.linalg.norm(slope) * np.linalg.norm(gradient))
    return float(slope @ gradient) / lengths if lengths > 0 else 0.0


def _signal_to_noise(gradient: Float[np.ndarray, "point"]) -> float:
    """Signal-to-noise ratio; 0 for a constant gradient."""
    noise = float(np.square(np.diff(gradient)).mean()) / 2
    return max(float(gradient.var(ddof=1)) - noise, 0.0) / noise if noise > 0 else 0.0


def summarize(
    parameter: Parameter, sweeps: Sequence[Sequence[SweepQuality]], num_images: int, seed: int = 0
) -> ParameterQuality:
    """Summarise the sweeps, one list per model, with intervals; of ``num_images`` images, some had no room."""
    groups = [np.array(group, dtype=float).reshape(-1, len(MEASURES)) for group in sweeps]
    rng = np.random.default_rng([seed, PARAMETERS.index(parameter)])
    estimates = {
        name: _estimate([group[:, column] for group in groups if len(group)], measure, rng)
        for column, (name, measure) in enumerate(MEASURES.items())
    }
    count = sum(map(len, groups))
    return ParameterQuality(parameter, count, num_images - count, **estimates, sweeps=[list(group) for group in sweeps])


def _estimate(groups: list[Float[np.ndarray, "sweep"]], measure: Measure, rng: np.random.Generator) -> Estimate:
    """A measure over all groups, with its interval."""
    if not groups:
        return Estimate(math.nan, math.nan, math.nan)
    numbers = np.concatenate(groups)
    value = float(measure.summary(numbers))
    if measure.is_share:
        return Estimate(value, *wilson_interval(round(numbers.sum()), len(numbers)))
    if min(map(len, groups)) < 2:  # one sweep gives no estimate of the spread
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, *bootstrap_interval(groups, rng, measure.summary))


def compare_qualities(named: dict[str, GradientQuality]) -> Figure:
    """Plot a panel per measure, a colour per run: numbers by parameter with intervals; dashed: no information."""
    figure = Figure(figsize=(3.1 * len(MEASURES), 3.5), layout="constrained")
    for axes, (name, measure) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items(), strict=True):
        axes.axhline(measure.worthless, color="gray", linestyle="--", linewidth=0.8)
        for place, (run, quality) in enumerate(named.items()):
            shift = 0.6 * ((place + 0.5) / len(named) - 0.5)
            for column, estimate in enumerate(part.estimates[name] for part in quality.parameters):
                color = PALETTE[place % len(PALETTE)]
                axes.plot([column + shift] * 2, [estimate.low, estimate.high], color=color, linewidth=2)
                axes.plot(column + shift, estimate.value, "osD^v"[place % 5], color=color, label="" if column else run)
        axes.set_xticks(range(len(PARAMETERS)), PARAMETERS)
        axes.set_xlim(-0.5, len(PARAMETERS) - 0.5)
        axes.set_title(measure.title, fontsize=9)
        axes.grid(axis="y", alpha=0.3)
        if name == "signal_to_noise":
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(bottom=-0.1)
            axes.yaxis.set_major_locator(FixedLocator([0, 0.5, *(d * 10**k for k in range(6) for d in (1, 2, 5))]))
            axes.yaxis.set_major_formatter("{x:g}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    figure.supxlabel("parameter of the window", fontsize=9)
    return figure


def save_qualities(named: dict[str, GradientQuality], folder: Path) -> None:
    """quality.json and quality.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "quality.json", {name: result.to_dict() for name, result in named.items()})
    save_figure(compare_qualities(named), folder / "quality.png")


def quality_table(named: dict[str, GradientQuality]) -> Table:
    """The table that ``glimpsenet inspect quality`` prints."""
    head, *rows = format_table(named)
    return Table("gradient quality, 95% intervals over images", head, rows)


def format_table(named: dict[str, GradientQuality]) -> list[list[str]]:
    """Header, then a row per run and parameter: run, parameter, images (left out), each number with its interval."""
    rows = [["run", "parameter", "images", *(measure.title for measure in MEASURES.values())]]
    for run, quality in named.items():
        for part in quality.parameters:
            left_out = f" ({part.num_left_out} left out)" if part.num_left_out else ""
            rows.append([run, part.parameter, f"{part.num_sweeps}{left_out}", *map(str, part.estimates.values())])
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

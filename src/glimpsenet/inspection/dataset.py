"""Scanpath statistics over a whole dataset.

    coverage = area(union of windows 2..T) / area of the image
    repeated window: IoU of window t with one of windows 2..t-1 is above 0.5
    saccade_t = |centre_t - centre_(t-1)| in normalised units, t = 3..T;   hit_t: 75% of the box lies in window t

A useful policy moves (saccades), sees new things (few repeated windows) and finds the evidence (hits). One that has
collapsed to a constant window shows a single spot in the density maps, and no spread of s, tx, ty. The report checks
this with logged outputs and example pictures (Supeene & Wang, sections 4.2 and 5.2.1, fig. 3).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.sample import Batch
from glimpsenet.errors import MissingError, UnreadableImageError
from glimpsenet.inspection.figures import (
    as_shown,
    draw_window,
    glimpse_color,
    label,
    save_figure,
    save_result,
    show_image,
)
from glimpsenet.inspection.photo import validation_images
from glimpsenet.models.glimpsenet import GlimpseNet
from glimpsenet.policies.base import Policy
from glimpsenet.runs import Run

REPEATED_IOU = 0.5
"""A window that overlaps an earlier one more than this repeats it."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EXAMPLES = 6
"""Example images to keep, of right answers and of wrong ones each."""
CHUNK = 4096
"""Images processed at once."""


@dataclass(frozen=True)
class Example:
    """An example image, 0..1, with its windows."""

    image: Float[Tensor, "channel size size"]
    windows: Float[Tensor, "glimpse 3"]
    label: int
    predicted: int


@dataclass(frozen=True)
class DatasetScanpaths:
    """All windows of all images; glimpse 1, the first glimpse, is the whole image."""

    windows: Float[Tensor, "image glimpse 3"]
    correct: Bool[Tensor, "image"]
    boxes: Float[Tensor, "image 4"]
    """Boxes of the objects, in pixels; NaN if unknown."""
    labels: Int[Tensor, "image"]
    predicted: Int[Tensor, "image"]
    image_size: int
    classes: list[str]
    right: list[Example]
    """A few random images."""
    wrong: list[Example]

    @property
    def num_glimpses(self) -> int:
        """T."""
        return self.windows.shape[1]

    @property
    def saccades(self) -> Float[Tensor, "image move"]:
        """Distance between the centres of windows t-1 and t, t = 3..T."""
        return self.windows[:, 1:, 1:].diff(dim=1).norm(dim=-1)

    @property
    def coverage(self) -> Float[Tensor, "image"]:
        """Share of the image's area in the union of windows 2..T."""
        return torch.cat([union_share(part) for part in self.windows[:, 1:].split(CHUNK)])

    @property
    def repeated(self) -> Bool[Tensor, "image move"]:
        """Whether window t repeats an earlier one, t = 3..T."""
        return torch.cat([repeats(part) for part in self.windows[:, 1:].split(CHUNK)])

    @property
    def hit_rate(self) -> list[float] | None:
        """Hit rate of each glimpse, over images with a box; 0 for the first glimpse. None without boxes."""
        known = self.boxes.isfinite().all(1)
        if not known.any():
            return None
        share = geometry.covered_share(self.windows[known], self.boxes[known, None], self.image_size)
        return [0.0, *(share >= geometry.HIT_SHARE)[:, 1:].double().mean(0).tolist()]

    def save_all(self, folder: Path) -> None:
        """dataset.json, dataset.png and examples.png."""
        for name in ("dataset.json", "dataset.png"):
            self.save(folder / name)
        save_figure(self.plot_examples(), folder / "examples.png")

    def density(self, glimpse: int, cells: int = 80) -> Float[Tensor, "cells cells"]:
        """Share of images whose window of ``glimpse`` covers each cell of a grid over the image; row y, column x."""
        scale, tx, ty = self.windows[:, glimpse - 1].unbind(-1)
        centres = (torch.arange(cells) + 0.5) * (2 / cells) - 1
        in_x, in_y = (((centres - place[:, None]).abs() <= scale[:, None]).float() for place in (tx, ty))
        return in_y.T @ in_x / len(scale)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, for JSON: lists have one entry per glimpse from ``first_glimpse`` on; shares are in 0..1."""
        repeated = self.repeated.double()
        moves = self.num_glimpses > 2
        return {
            "num_images": len(self.windows),
            "num_glimpses": self.num_glimpses,
            "accuracy": float(self.correct.double().mean()),
            "windows": {
                "first_glimpse": 2,
                **{
                    name: [_distribution(self.windows[:, glimpse, column]) for glimpse in range(1, self.num_glimpses)]
                    for column, name in enumerate(("s", "tx", "ty"))
                },
            },
            "saccade": {
                "first_glimpse": 3,
                "distance": [_distribution(self.saccades[:, move]) for move in range(self.num_glimpses - 2)],
            },
            "coverage": _distribution(self.coverage),
            "repeated": {
                "first_glimpse": 3,
                "share": float(repeated.mean()) if moves else None,
                "per_glimpse": repeated.mean(0).tolist(),
            },
            "hit_rate": None if self.hit_rate is None else {"first_glimpse": 1, "per_glimpse": self.hit_rate},
        }

    def plot(self) -> Figure:
        """Plot for each glimpse what share of windows covers each position, and histograms of s, tx and ty."""
        windows = self.num_glimpses - 1
        figure = Figure(figsize=(max(9.6, 2.9 * windows + 1.0), 6.4), layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.25, 1])[:, 0]
        _plot_density(above, self)
        for column, (name, axes) in enumerate(zip(("s", "tx", "ty"), below.subplots(1, 3), strict=True)):
            _plot_histogram(axes, self, column, name)
        return figure

    def plot_examples(self) -> Figure:
        """Plot images with their windows: right answers in the left half, wrong ones in the right."""
        figure = Figure(figsize=(12.6, 5.2), layout="constrained")
        halves = figure.subfigures(1, 2, squeeze=False, wspace=0.04)[0]
        for half, title, examples in zip(halves, ("right", "wrong"), (self.right, self.wrong), strict=True):
            number = int((self.correct == (title == "right")).sum())
            half.suptitle(f"{title}: {number} of {len(self.correct)} images", fontsize=11, fontweight="bold")
            cells = half.subplots(2, 3).flat
            for example, axes in zip(examples, cells, strict=False):  # this order leaves unused cells for below
                self._plot_example(axes, example)
            for axes in cells:  # the unused ones
                axes.axis("off")
        return figure

    def _plot_example(self, axes: Axes, example: Example) -> None:
        show_image(axes, example.image)
        for glimpse in range(2, self.num_glimpses + 1):
            draw_window(axes, example.windows[glimpse - 1], self.image_size, glimpse)
        said, true = self.classes[example.predicted], self.classes[example.label]
        axes.set_title(label(said, 24) if said == true else f"{label(said, 24)},\nnot {label(true, 20)}", fontsize=9)

    def save(self, file: Path) -> None:
        """Write the numbers if the suffix is .json, else the picture."""
        save_result(file, self.plot, to_dict=self.to_dict)


def scan_dataset(
    model: GlimpseNet,
    batches: Iterable[Batch],
    *,
    image_size: int,
    policy: Policy | None = None,
    classes: list[str] | None = None,
    skip_bad: bool = False,
) -> DatasetScanpaths:
    """Run a model on a dataset, on the model's device.

    Args:
        model: set to evaluation mode.
        batches: batches from a loader; images not normalised.
        image_size: side of the images in pixels.
        policy: overrides the model's policy.
        classes: class names; class numbers if None.
        skip_bad: skip unreadable images instead of stopping.

    Raises:
        UserError: for an unreadable image without ``skip_bad``; names it. Also if there is no image.
        ValueError: for a model that takes only the first glimpse.
    """
    if model.num_glimpses == 1:
        raise ValueError("the model takes only the first glimpse: there are no windows to inspect")
    device = model.classifier.weight.device
    examples = _ExamplePicker()
    parts: list[tuple[Tensor, ...]] = []
    model.eval()
    for batch in batches:
        if batch.problems and not skip_bad:
            raise UnreadableImageError(f"{batch.problems[0]}; remove the file or skip unreadable images")
        if len(batch.images):
            with torch.no_grad():
                output = model(model.normalization(batch.images.to(device)), policy=policy)
            windows, predicted = output.windows.float().cpu(), output.logits[:, -1].argmax(-1).cpu()
            parts.append((windows, batch.boxes.float().cpu(), batch.labels.cpu(), predicted))
            examples.add(batch, windows, predicted)
    if not parts:
        raise MissingError("nothing to inspect: no readable image")
    windows, boxes, labels, predicted = (torch.cat(column) for column in zip(*parts, strict=True))
    names = [str(index) for index in range(model.num_classes)] if classes is None else classes
    kept = examples.kept
    return DatasetScanpaths(
        windows, predicted == labels, boxes, labels, predicted, image_size, names, kept(True), kept(False)
    )


def scan_run(run: Run, data: Path | None = None) -> DatasetScanpaths:
    """A run's scanpaths on its validation images, or on those of another folder.

    Raises:
        UserError: for data that cannot be read.
        ValueError: for a model that takes only the first glimpse.
    """
    photos = validation_images(run, data)
    batches = create_loader(photos, InOrder(len(photos)), 64)
    return scan_dataset(run.model, batches, image_size=run.config.model.image_size, classes=run.classes)


class _ExamplePicker:
    """Keeps a few random right and wrong images while batches pass, the same ones on every run."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.best: dict[bool, list[tuple[float, Example]]] = {True: [], False: []}

    def add(self, batch: Batch, windows: Tensor, predicted: Tensor) -> None:
        """Draw a random number for each image; keep those with the smallest."""
        draws = torch.rand(len(predicted), generator=self.generator)
        labels = batch.labels.cpu()
        for right, best in self.best.items():
            candidates = ((predicted == labels) == right).nonzero()[:, 0]
            for row in candidates[draws[candidates].argsort()[:EXAMPLES]].tolist():
                shown = as_shown(batch.images[row]).clone()  # a copy, so that the batch can be freed
                best.append((float(draws[row]), Example(shown, windows[row], int(labels[row]), int(predicted[row]))))
            best.sort(key=lambda entry: entry[0])
            del best[EXAMPLES:]

    def kept(self, right: bool) -> list[Example]:
        """The images kept, at most ``EXAMPLES``."""
        return [example for _, example in self.best[right]]


def union_share(windows: Float[Tensor, "image window 3"]) -> Float[Tensor, "image"]:
    """Share of each image's area in the union of its windows; exact.

    The windows' edges cut the image into cells, each either fully covered or not at all.
    """
    scale, centre = windows[..., :1], windows[..., 1:]
    low, high = (centre - scale).clamp(-1, 1), (centre + scale).clamp(-1, 1)
    edges = torch.cat([low, high], 1).sort(1).values
    middle, length = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)
    inside = (middle[:, None] > low[:, :, None]) & (middle[:, None] < high[:, :, None])
    covered = (inside[..., None, :, 0] & inside[..., :, None, 1]).any(1)
    return (covered * length[:, None, :, 0] * length[:, :, None, 1]).sum((1, 2)) / 4


def repeats(windows: Float[Tensor, "image window 3"]) -> Bool[Tensor, "image move"]:
    """Whether each window after an image's first overlaps an earlier one with an IoU above 0.5."""
    overlap = geometry.overlap(windows[:, :, None], windows[:, None])
    return (overlap.tril(-1) > REPEATED_IOU).any(2)[:, 1:]


def _distribution(values: Float[Tensor, "image"]) -> dict[str, Any]:
    """Mean, standard deviation (over the images themselves) and quantiles."""
    numbers = values.double().numpy()
    return {
        "mean": float(numbers.mean()),
        "std": float(numbers.std()),
        "quantiles": {f"{level:g}": float(np.quantile(numbers, level)) for level in QUANTILES},
    }


def _plot_density(figure: SubFigure, paths: DatasetScanpaths) -> None:
    """Draw a heat map for each glimpse, all on one colour scale."""
    glimpses = range(2, paths.num_glimpses + 1)
    maps = [paths.density(glimpse) for glimpse in glimpses]
    colors = Normalize(0, max(float(density.max()) for density in maps))
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    size = paths.image_size
    for glimpse, density, axes in zip(glimpses, maps, panels, strict=True):
        axes.imshow(density.numpy(), cmap="viridis", norm=colors, extent=(0, size, size, 0))
        hits = "" if paths.hit_rate is None else f" · hit rate {paths.hit_rate[glimpse - 1]:.2f}"
        axes.set_title(f"glimpse {glimpse}{hits}", fontsize=9)
        axes.set_xlabel("x (pixels)", fontsize=8)
        axes.tick_params(labelsize=8)
        for spine in axes.spines.values():
            spine.set_edgecolor(glimpse_color(glimpse))
            spine.set_linewidth(2.5)
    panels[0].set_ylabel("y (pixels)", fontsize=8)
    bar = figure.colorbar(panels[0].images[0], ax=list(panels), shrink=0.8)
    bar.set_label("share of images whose\nwindow covers the position", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    repeated = f" · repeated windows {float(paths.repeated.double().mean()):.0%}" if paths.num_glimpses > 2 else ""
    figure.suptitle(
        f"{len(paths.windows)} images · windows cover {float(paths.coverage.mean()):.0%} of an image{repeated}",
        fontsize=10,
    )


def _plot_histogram(axes: Axes, paths: DatasetScanpaths, column: int, name: str) -> None:
    values = paths.windows[:, 1:, column]
    low, high = (float(values.min()), float(values.max())) if name == "s" else (-1.0, 1.0)
    bins = np.linspace(low - 1e-3, high + 1e-3, 26).tolist()
    for glimpse in range(2, paths.num_glimpses + 1):
        axes.hist(
            values[:, glimpse - 2].numpy(),
            bins,
            weights=np.full(len(values), 1 / len(values)),
            histtype="step",
            linewidth=1.6,
            color=glimpse_color(glimpse),
            label=f"glimpse {glimpse}",
        )
    meaning = {"s": "half side", "tx": "centre, x", "ty": "centre, y"}[name]
    axes.set_xlabel(f"{name} ({meaning}; normalised)", fontsize=8)
    axes.set_ylabel("share of images", fontsize=8)
    axes.tick_params(labelsize=8)
    if name == "ty":
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)

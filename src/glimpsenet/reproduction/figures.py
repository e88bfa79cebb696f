"""Figures of all rows: accuracies and learning curves with their spread, and scanpaths of the same images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from glimpsenet import runs
from glimpsenet.data.loading import open_data
from glimpsenet.data.spread import read_spread
from glimpsenet.inspection.figures import PALETTE, as_shown, draw_window, label, show_image
from glimpsenet.training.series import Record, curve_of, mean_curve

LINES = ("-", "--")
COLORS = (*PALETTE[:6], "black")


def plot_rows(results: Mapping[str, Sequence[Record]]) -> Figure:
    """Plot the accuracy of each row (left; dots: seeds, line: mean) and learning curves (right; bands from the worst to
    the best seed).
    """
    figure = Figure(figsize=(11, 0.32 * len(results) + 2.4), layout="constrained")
    dots, lines = figure.subplots(1, 2)
    for place, (row, records) in enumerate(results.items()):
        style = {"color": COLORS[place % 7], "linestyle": LINES[place // 7 % 2]}
        accuracies = [record["evaluation"]["policies"]["learned"]["accuracy"][-1] for record in records]
        dots.plot(accuracies, [place] * len(accuracies), "o", color=style["color"], alpha=0.7, markersize=6)
        mean = sum(accuracies) / len(accuracies)
        dots.plot([mean, mean], [place - 0.32, place + 0.32], color="black", linewidth=2)
        curves = [curve_of(record) for record in records]
        curve = mean_curve(curves)
        steps = list(curve)
        low, high = ([pick(c[step] for c in curves) for step in steps] for pick in (min, max))
        # More rows than distinguishable colours: the second round is dashed.
        lines.plot(steps, list(curve.values()), label=row, linewidth=1.8, **style)
        lines.fill_between(steps, low, high, color=style["color"], alpha=0.1, linewidth=0)
    dots.set_yticks(range(len(results)), [f"{row} (n = {len(results[row])})" for row in results], fontsize=8)
    dots.invert_yaxis()
    dots.set_xlabel("accuracy after the last glimpse (dots: seeds; line: mean)")
    dots.grid(axis="x", alpha=0.3)
    lines.set_xlabel("optimiser steps")
    lines.set_ylabel("validation accuracy (bands: worst to best seed)")
    lines.set_ylim(0, 1)
    lines.grid(alpha=0.3)
    lines.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def plot_scanpaths_by_row(folders: Mapping[str, Path], num_images: int = 4, seed: int = 0) -> Figure:
    """Plot scanpaths of the same held-out images (lines) by one run of each row (columns); ``seed`` selects them."""
    columns = {row: runs.load_run(folder) for row, folder in folders.items()}
    figure = Figure(figsize=(1.75 * len(columns) + 0.2, 1.75 * num_images + 0.5), layout="constrained")
    grid = figure.subplots(num_images, len(columns), squeeze=False)
    for column, (row, run) in enumerate(columns.items()):
        _, photos = open_data(run.config, run.classes, run.channels).held_out()
        batch = read_spread(photos, num_images, seed)
        images = as_shown(batch.images)
        with torch.inference_mode():
            output = run.model(run.model.normalization(batch.images))
        for line in range(min(num_images, len(images))):
            axes = grid[line, column]
            show_image(axes, images[line])
            for glimpse in range(2, output.windows.shape[1] + 1):
                draw_window(axes, output.windows[line, glimpse - 1], images.shape[-1], glimpse)
            answer, truth = int(output.logits[line, -1].argmax()), int(batch.labels[line])
            verdict = run.classes[answer] if answer == truth else f"{run.classes[answer]} (is {run.classes[truth]})"
            axes.set_xlabel(label(verdict, 22), fontsize=8, color="black" if answer == truth else PALETTE[3])
        grid[0, column].set_title(row.replace("-", "-\n", 2) if len(row) > 14 else row, fontsize=7.5)
    return figure

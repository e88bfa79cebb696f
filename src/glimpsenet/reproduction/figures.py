"""Learning curves of all rows, and the scanpaths of the same images under each."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from glimpsenet import runs
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.inspection.figures import PALETTE, as_shown, draw_window, show_image
from glimpsenet.training.series import mean_curve, read_curve

LINES = ("-", "--")
COLORS = (*PALETTE[:6], "black")


def plot_learning_curves(folders: dict[str, list[Path]]) -> Figure:
    """Validation accuracy of the last step against optimiser steps; mean over seeds."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for place, (row, places) in enumerate(folders.items()):
        curve = mean_curve([read_curve(folder) for folder in places])
        # Nine rows, seven colours that can be told apart: the second round is dashed.
        axes.plot(
            list(curve), list(curve.values()), LINES[place // 7 % 2], color=COLORS[place % 7], label=row, linewidth=1.8
        )
    axes.set_xlabel("optimiser steps")
    axes.set_ylabel("validation accuracy after the last glimpse")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def plot_scanpaths_by_row(folders: dict[str, list[Path]], num_images: int = 4) -> Figure:
    """The first validation images, a line each, under every row's first seed, a column each."""
    columns = {row: runs.load_run(places[0]) for row, places in folders.items()}
    figure = Figure(figsize=(1.75 * len(columns) + 0.2, 1.75 * num_images + 0.5), layout="constrained")
    grid = figure.subplots(num_images, len(columns), squeeze=False)
    for column, (row, run) in enumerate(columns.items()):
        splits = open_data(run.config, run.classes, run.channels)
        batch = next(iter(create_loader(splits.val, InOrder(len(splits.val)), num_images)))
        images = as_shown(batch.images)
        with torch.inference_mode():
            output = run.model(run.model.normalization(batch.images))
        for line in range(min(num_images, len(images))):
            axes = grid[line, column]
            show_image(axes, images[line])
            for step in range(2, output.affine.shape[1] + 1):
                draw_window(axes, output.affine[line, step - 1], images.shape[-1], step)
            answer, truth = int(output.logits[line, -1].argmax()), int(batch.labels[line])
            verdict = run.classes[answer] if answer == truth else f"{run.classes[answer]} (is {run.classes[truth]})"
            axes.set_xlabel(verdict[:22], fontsize=8, color="black" if answer == truth else PALETTE[3])
        grid[0, column].set_title(row.replace("-", "-\n", 2) if len(row) > 14 else row, fontsize=7.5)
    return figure

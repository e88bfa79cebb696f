"""Arrows: where descent would move and resize each window (Supeene & Wang, fig. 2).

    two arrows at the centre, along -dL/dtx and -dL/dty;   four at the corners, along -dL/ds, outwards where it grows

All arrows of a picture share one scale, so that their lengths compare across glimpses.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.inspection.figures import draw_window, save_figure, show_image, step_color
from glimpsenet.inspection.gradients import Scene, WindowLoss, last_loss, probe

LONGEST = 0.22
"""Length of a picture's longest arrow, as a share of the image's side."""


@dataclass(frozen=True)
class Arrows:
    """The gradients of one image, window by window (steps 2..T)."""

    scene: Scene
    gradient: Float[Tensor, "later_step 3"]
    """dL/d(s, tx, ty) of steps 2..T."""
    loss: Float[Tensor, "later_step"]

    def plot(self) -> Figure:
        """The image with all windows and arrows, and each glimpse with its own."""
        steps = range(2, self.scene.num_steps + 1)
        figure = Figure(figsize=(4.4 + 2.5 * len(steps), 4.3), layout="constrained")
        grid = figure.add_gridspec(1, len(steps) + 1, width_ratios=[1.7, *[1] * len(steps)])
        whole = figure.add_subplot(grid[0])
        size = self.scene.image_size
        show_image(whole, self.scene.shown)
        unit = LONGEST / float(self.gradient.abs().amax().clamp(min=1e-12))
        with torch.no_grad():
            shown = self.scene.shown.to(self.scene.image.device)[None]
            glimpses = self.scene.model.glimpses(shown, self.scene.affine[None])[0].cpu()
        for row, step in enumerate(steps):
            window = self.scene.affine[step - 1].cpu()
            draw_window(whole, window, size, step)
            draw_arrows(whole, geometry.affine_to_box(window, size), self.gradient[row], unit * size, step)
            axes = figure.add_subplot(grid[row + 1])
            self._plot_glimpse(axes, glimpses[step - 1], row, unit)
        whole.set_title("where descent would move and resize windows", fontsize=10)
        return figure

    def _plot_glimpse(self, axes: Axes, glimpse: Float[Tensor, "channel g g"], row: int, unit: float) -> None:
        """A glimpse, framed, with room for its arrows around it."""
        step, side = row + 2, glimpse.shape[-1]
        show_image(axes, glimpse)
        axes.add_patch(Rectangle((0, 0), side, side, fill=False, edgecolor=step_color(step), linewidth=2.5))
        axes.set_xlim(-LONGEST * side, (1 + LONGEST) * side)
        axes.set_ylim((1 + LONGEST) * side, -LONGEST * side)
        for spine in axes.spines.values():
            spine.set_visible(False)
        draw_arrows(axes, torch.tensor([0.0, 0.0, side, side]), self.gradient[row], unit * side, step)
        s, tx, ty = self.gradient[row].tolist()
        axes.text(side / 2, -0.04 * side, str(step), ha="center", fontsize=10)
        numbers = f"dL/ds {s:+.3g}\ndL/dtx {tx:+.3g}\ndL/dty {ty:+.3g}\n(nats)"
        axes.text(side / 2, 1.04 * side, numbers, ha="center", va="top", fontsize=9)

    def save(self, file: Path) -> None:
        """Write the picture."""
        save_figure(self.plot(), file)


def arrows(scene: Scene, loss: WindowLoss = last_loss) -> Arrows:
    """Gradients of every window after the first look.

    Args:
        scene: from :func:`glimpsenet.inspection.gradients.observe`.
        loss: of which the derivative is taken.

    Raises:
        ValueError: if the model takes the first look only, or lacks what the loss needs.
    """
    if scene.num_steps == 1:
        raise ValueError("the model takes the first look only: there are no windows to draw arrows on")
    values = [probe(scene, step, scene.affine[step - 1][None], loss) for step in range(2, scene.num_steps + 1)]
    losses, gradients = (torch.cat(column).cpu() for column in zip(*values, strict=True))
    return Arrows(scene, gradients, losses)


def draw_arrows(
    axes: Axes, box: Float[Tensor, "4"], gradient: Float[Tensor, "3"], pixels_per_unit: float, step: int
) -> None:
    """The arrows of one window, over its box in the axes' pixels."""
    s, tx, ty = (-gradient * pixels_per_unit).tolist()
    x0, y0, x1, y1 = box.tolist()
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    pairs = [(x, y, tx, 0.0), (x, y, 0.0, ty)]
    pairs += [(cx, cy, s * (1 if cx > x else -1), s * (1 if cy > y else -1)) for cx in (x0, x1) for cy in (y0, y1)]
    start_x, start_y, dx, dy = np.array(pairs).T
    axes.quiver(
        *(start_x, start_y, dx, dy),
        angles="xy",
        scale_units="xy",
        scale=1,
        units="dots",
        width=3.6,
        headwidth=3.6,
        headlength=3.6,
        headaxislength=3.2,
        color=step_color(step),
        edgecolor="black",
        linewidth=0.6,
        zorder=3,
    )

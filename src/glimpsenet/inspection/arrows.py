"""Arrows: where gradient descent would move and resize each window (Supeene & Wang, fig. 2).

    two arrows at the centre, along -dL/dtx and -dL/dty;   four at the corners, along -dL/ds, outwards where it grows

Within a figure, an arrow's length on paper is proportional to its derivative, in the photo and in the glimpses. Arrows
too short to see are drawn at the shortest visible length.
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
from glimpsenet.inspection.figures import draw_window, glimpse_color, label, save_figure, show_image
from glimpsenet.inspection.gradients import Scene, WindowLoss, last_loss, probe

LONGEST, SHORTEST = 0.5, 0.15
"""Lengths of arrows in inches."""
MARGIN = 0.24
"""Room for arrows around a glimpse, as a share of its side."""


@dataclass(frozen=True)
class Arrows:
    """The gradients of one image, for each window (glimpses 2..T)."""

    scene: Scene
    gradient: Float[Tensor, "later_glimpse 3"]
    """dL/d(s, tx, ty) of glimpses 2..T."""
    loss: Float[Tensor, "later_glimpse"]
    class_name: str
    """Class whose loss is differentiated."""

    def plot(self) -> Figure:
        """Plot the image with all windows and arrows, and each glimpse with its own arrows."""
        windows = range(2, self.scene.num_glimpses + 1)
        figure = Figure(figsize=(4.4 + 2.5 * len(windows), 4.3), layout="constrained")
        grid = figure.add_gridspec(1, len(windows) + 1, width_ratios=[1.7, *[1] * len(windows)])
        whole = figure.add_subplot(grid[0])
        size = self.scene.image_size
        show_image(whole, self.scene.shown)
        largest = float(self.gradient.abs().amax())
        with torch.no_grad():
            shown = self.scene.shown.to(self.scene.image.device)[None]
            crops = self.scene.model.crops(shown, self.scene.windows[None])[0].cpu()
        for row, glimpse in enumerate(windows):
            window = self.scene.windows[glimpse - 1].cpu()
            draw_window(whole, window, size, glimpse)
            draw_arrows(whole, geometry.window_to_box(window, size), self.gradient[row], largest, glimpse)
            axes = figure.add_subplot(grid[row + 1])
            self._plot_glimpse(axes, crops[glimpse - 1], row, largest)
        title = f"loss of class {label(self.class_name, 30)}:\nwhere descent moves and resizes windows"
        whole.set_title(title, fontsize=10)
        floor = largest * SHORTEST / LONGEST
        whole.set_xlabel(f"longest arrow: {largest:.3g} nats; all below {floor:.1g} have the same length", fontsize=9)
        return figure

    def _plot_glimpse(self, axes: Axes, crop: Float[Tensor, "channel g g"], row: int, largest: float) -> None:
        """Draw a glimpse, framed, with room for its arrows around it."""
        glimpse, side = row + 2, crop.shape[-1]
        show_image(axes, crop)
        axes.add_patch(Rectangle((0, 0), side, side, fill=False, edgecolor=glimpse_color(glimpse), linewidth=2.5))
        axes.set_xlim(-MARGIN * side, (1 + MARGIN) * side)
        axes.set_ylim((1 + MARGIN) * side, -MARGIN * side)
        for spine in axes.spines.values():
            spine.set_visible(False)
        draw_arrows(axes, torch.tensor([0.0, 0.0, side, side]), self.gradient[row], largest, glimpse)
        s, tx, ty = self.gradient[row].tolist()
        axes.text(side / 2, -0.04 * side, str(glimpse), ha="center", fontsize=10)
        numbers = f"dL/ds {s:+.3g}\ndL/dtx {tx:+.3g}\ndL/dty {ty:+.3g}\n(nats)"
        axes.text(side / 2, 1.04 * side, numbers, ha="center", va="top", fontsize=9)

    def save(self, file: Path) -> None:
        """Write the picture."""
        save_figure(self.plot(), file)


def arrows(scene: Scene, loss: WindowLoss = last_loss, *, classes: list[str] | None = None) -> Arrows:
    """Gradients of every window after the first glimpse.

    Args:
        scene: from :func:`glimpsenet.inspection.gradients.observe`.
        loss: loss to differentiate.
        classes: names of the classes; their numbers if None.

    Raises:
        ValueError: if the model takes only the first glimpse, or lacks what the loss needs.
    """
    if scene.num_glimpses == 1:
        raise ValueError("the model takes only the first glimpse: there are no windows to draw arrows on")
    values = [
        probe(scene, glimpse, scene.windows[glimpse - 1][None], loss) for glimpse in range(2, scene.num_glimpses + 1)
    ]
    losses, gradients = (torch.cat(column).cpu() for column in zip(*values, strict=True))
    return Arrows(scene, gradients, losses, str(scene.label) if classes is None else classes[scene.label])


def arrow_length(derivative: Float[Tensor, "3"], largest: float) -> Float[Tensor, "3"]:
    """Signed lengths of the arrows in inches; 0 for derivatives that are 0, and if all are 0."""
    inches = derivative.abs() * (LONGEST / max(largest, 1e-12))
    return -derivative.sign() * inches.clamp(min=SHORTEST)


def draw_arrows(
    axes: Axes, box: Float[Tensor, "4"], gradient: Float[Tensor, "3"], largest: float, glimpse: int
) -> None:
    """Draw one window's arrows, over its box in the axes' pixels; ``largest`` is the figure's largest derivative."""
    s, tx, ty = arrow_length(gradient, largest).tolist()
    s /= 2**0.5  # along a diagonal
    x0, y0, x1, y1 = box.tolist()
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    pairs = [(x, y, tx, 0.0), (x, y, 0.0, ty)]
    pairs += [(cx, cy, s * (1 if cx > x else -1), s * (1 if cy > y else -1)) for cx in (x0, x1) for cy in (y0, y1)]
    start_x, start_y, dx, dy = np.array(pairs).T
    axes.quiver(
        *(start_x, start_y, dx, dy),
        angles="xy",
        scale_units="inches",
        scale=1,
        units="dots",
        width=3.6,
        headwidth=3.6,
        headlength=3.6,
        headaxislength=3.2,
        color=glimpse_color(glimpse),
        edgecolor="black",
        linewidth=0.6,
        zorder=3,
    )

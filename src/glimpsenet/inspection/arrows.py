"""Arrows: where descent would move and resize each window (Supeene & Wang, fig. 2).

    two arrows at the centre, along -dL/dtx and -dL/dty;   four at the corners, along -dL/ds, outwards where it grows

All arrows of a picture share one scale, so that their lengths compare across glimpses.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.inspection.figures import draw_window, frame, save_figure, show_image, step_color
from glimpsenet.inspection.gradients import Scene, WindowLoss, last_loss, probe

LONGEST = 0.22
"""Length of a picture's longest arrow, as a share of the image's side."""


@dataclass(frozen=True)
class Arrows:
    """The gradients of one image, window by window (steps 2..T)."""

    scene: Scene
    image: Float[Tensor, "channel size size"]
    """As it is shown, 0..1."""
    gradient: Float[Tensor, "later_step 3"]
    """dL/d(s, tx, ty) of steps 2..T."""
    loss: Float[Tensor, "later_step"]

    def plot(self) -> Figure:
        """The image with all windows and arrows, and each glimpse with its own."""
        steps = range(2, self.scene.num_steps + 1)
        figure = Figure(figsize=(3.6 + 2.0 * len(steps), 3.9), layout="constrained")
        grid = figure.add_gridspec(1, len(steps) + 1, width_ratios=[1.8, *[1] * len(steps)])
        whole = figure.add_subplot(grid[0])
        size = self.scene.image_size
        show_image(whole, self.image)
        unit = LONGEST / float(self.gradient.abs().amax().clamp(min=1e-12))
        glimpses = self.scene.model.glimpses(self.image[None], self.scene.affine[None])[0].detach()
        for row, step in enumerate(steps):
            window = self.scene.affine[step - 1]
            draw_window(whole, window, size, step)
            draw_arrows(whole, geometry.affine_to_box(window, size), self.gradient[row], unit * size, step)
            axes = figure.add_subplot(grid[row + 1])
            show_image(axes, glimpses[step - 1])
            frame(axes, step)
            side = glimpses.shape[-1]
            inset = torch.tensor([0.0, 0.0, side, side])
            draw_arrows(axes, inset, self.gradient[row], unit * side, step)
            s, tx, ty = self.gradient[row].tolist()
            axes.set_title(f"{step}", fontsize=9)
            axes.set_xlabel(f"dL/ds {s:+.2g}\ndL/dtx {tx:+.2g}\ndL/dty {ty:+.2g}", fontsize=8)
        whole.set_title("descent directions", fontsize=9)
        return figure

    def save(self, file: Path) -> None:
        """Write the picture."""
        save_figure(self.plot(), file)


def arrows(scene: Scene, image: Tensor, loss: WindowLoss = last_loss) -> Arrows:
    """Gradients of every window after the first look.

    Args:
        scene: from :func:`glimpsenet.inspection.gradients.observe`.
        image: the same image, uint8 or 0..1, to draw on.
        loss: of which the derivative is taken.

    Raises:
        ValueError: if the model takes the first look only, or lacks what the loss needs.
    """
    if scene.num_steps == 1:
        raise ValueError("the model takes the first look only: there are no windows to draw arrows on")
    values = [probe(scene, step, scene.affine[step - 1][None], loss) for step in range(2, scene.num_steps + 1)]
    shown = image.float() / 255 if image.dtype == torch.uint8 else image
    return Arrows(
        scene, shown, torch.cat([gradient for _, gradient in values]), torch.cat([value for value, _ in values])
    )


def draw_arrows(
    axes: Axes, box: Float[Tensor, "4"], gradient: Float[Tensor, "3"], pixels_per_unit: float, step: int
) -> None:
    """The arrows of one window, over its box in the axes' pixels."""
    s, tx, ty = (-gradient * pixels_per_unit).tolist()
    x0, y0, x1, y1 = box.tolist()
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    pairs = [(x, y, tx, 0.0), (x, y, 0.0, ty)]
    pairs += [(cx, cy, s * (1 if cx > x else -1), s * (1 if cy > y else -1)) for cx in (x0, x1) for cy in (y0, y1)]
    for start_x, start_y, dx, dy in pairs:
        for color, width in (("black", 3.4), (step_color(step), 1.8)):
            axes.annotate(
                "",
                (start_x + dx, start_y + dy),
                (start_x, start_y),
                arrowprops={"arrowstyle": "->", "color": color, "lw": width, "shrinkA": 0, "shrinkB": 0},
                annotation_clip=False,
            )

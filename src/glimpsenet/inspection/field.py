"""Fields: the loss over all positions of one window, with the direction of descent at each.

    L(tx, ty) and -dL/d(tx, ty) on a grid, s and all other windows fixed

If descent pointed to the evidence from everywhere, all arrows would lead into one basin.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.inspection.figures import draw_window, save_figure, show_image
from glimpsenet.inspection.gradients import Scene, WindowLoss, check_glimpse, last_loss, probe


@dataclass(frozen=True)
class Field:
    """Loss and gradient on a grid of positions, row y, column x."""

    scene: Scene
    glimpse: int
    scale: float
    places: Float[Tensor, "row column 2"]
    """(tx, ty)."""
    loss: Float[Tensor, "row column"]
    gradient: Float[Tensor, "row column 2"]
    """dL/d(tx, ty)."""

    def plot(self) -> Figure:
        """Plot the image with the window, and the loss as a map with downhill arrows of unit length."""
        figure = Figure(figsize=(9.2, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        size = self.scene.image_size
        show_image(left, self.scene.shown)
        draw_window(left, self.scene.windows[self.glimpse - 1].cpu(), size, self.glimpse)
        left.set_title(f"window of glimpse {self.glimpse}", fontsize=10)
        x, y = geometry.normalized_to_pixel(self.places, size).numpy().transpose(2, 0, 1)
        picture = right.pcolormesh(x, y, self.loss.numpy(), cmap="viridis", shading="nearest")
        downhill = -self.gradient / self.gradient.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        right.quiver(
            *(x, y, *downhill.numpy().transpose(2, 0, 1)),
            angles="xy",
            pivot="mid",
            width=0.005,
            color="white",
            edgecolor="black",
            linewidth=0.4,
        )
        right.set_xlim(0, size)
        right.set_ylim(size, 0)
        right.set_aspect("equal")
        right.set_xlabel("x of the window's centre (pixels)")
        right.set_ylabel("y of the window's centre (pixels)")
        right.set_title(f"loss by position, s = {self.scale:.2f}; arrows: direction of descent", fontsize=10)
        figure.colorbar(picture, ax=right, label="loss (nats)")
        return figure

    def save(self, file: Path) -> None:
        """Write the picture."""
        save_figure(self.plot(), file)


def field(
    scene: Scene,
    *,
    glimpse: int = 2,
    points: int = 21,
    scale: float | None = None,
    loss: WindowLoss = last_loss,
) -> Field:
    """Loss and gradient over a grid of positions of one window.

    Args:
        scene: from :func:`glimpsenet.inspection.gradients.observe`.
        glimpse: glimpse whose window is moved.
        points: positions along each side of the grid.
        scale: s of the window; the model's choice if None.
        loss: loss to differentiate.

    Raises:
        ValueError: if there is no such glimpse, or no room to move (s = 1).
    """
    check_glimpse(scene, glimpse)
    scale = float(scene.windows[glimpse - 1, 0]) if scale is None else scale
    if not 0 < scale < 1:
        raise ValueError(f"a window of scale {scale:g} has no room to move; a field needs 0 < s < 1")
    ticks = torch.linspace(scale - 1, 1 - scale, points)
    places = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
    windows = torch.cat([torch.full((points**2, 1), scale), places.view(-1, 2)], 1)
    losses, gradients = (part.cpu() for part in probe(scene, glimpse, windows, loss))
    return Field(scene, glimpse, scale, places, losses.view(points, points), gradients[:, 1:].view(points, points, 2))

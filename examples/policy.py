"""A custom policy: look where the image has most contrast. Compares it with a trained run's learned policy.

Run it: ``python examples/policy.py runs/demo``.
"""

import sys

import torch
import torch.nn.functional as F

import glimpsenet
from glimpsenet import geometry
from glimpsenet.data.loading import InOrder, create_loader, open_data
from glimpsenet.evaluation.accuracy import evaluate
from glimpsenet.models.state import GlimpseState


class ContrastGlimpses(glimpsenet.Policy):
    """Splits the image into n x n tiles and visits them in order of decreasing grey value variance."""

    def __init__(self, tiles: int = 4):
        super().__init__()
        self.tiles = tiles

    def choose(self, state: GlimpseState) -> torch.Tensor:
        """Windows (s, tx, ty) of glimpse ``state.glimpse``, ``[batch, 3]``; called from glimpse 2 on."""
        grey = state.images.mean(1)
        mean, square = (F.adaptive_avg_pool2d(x, self.tiles).flatten(1) for x in (grey, grey.square()))
        order = (square - mean.square()).argsort(1, descending=True)
        place = order[:, (state.glimpse - 2) % self.tiles**2]
        whole = geometry.first_window(state.images)
        centres = geometry.cell_centres(whole, self.tiles, self.tiles).flatten(1, 2)
        return torch.cat([whole[:, :1] / self.tiles, centres[torch.arange(len(place)), place]], 1)


def main(folder: str) -> None:
    """Print the run's accuracy and found rate under three policies."""
    run = glimpsenet.load_run(folder)
    settings = {"scale_range": run.config.model.scale_range, "image_size": run.config.model.image_size}
    images = open_data(run.config, run.classes, run.channels).val
    batches = create_loader(images, InOrder(len(images)), 64)
    for policy in ("learned", "random", ContrastGlimpses()):
        result = evaluate(run.model, batches, policy=policy, classes=run.classes, **settings)
        print(result["policy"], "accuracy", result["accuracy"][-1], "found", result["found_rate"])


if __name__ == "__main__":
    main(sys.argv[1])

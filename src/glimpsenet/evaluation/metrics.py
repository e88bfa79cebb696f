"""What is measured of a scanpath, per glimpse, summed over images and processes.

hit_t    = window t covers at least 75% of the box (0 for the first glimpse, which covers all and reads nothing)
found_t  = hit at some glimpse so far
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from glimpsenet import geometry
from glimpsenet.data.sample import Batch
from glimpsenet.losses import glimpse_losses
from glimpsenet.models.glimpsenet import GlimpseOutput

MOST_CONFUSED = 1000
"""With more classes than this the confusion matrix is not kept: at 10,000 it would take a gigabyte."""


class ScanpathMetrics(Metric):
    """Accuracy, loss and mean scale per glimpse; hit and found rates where boxes are known; the confusion matrix.

    The confusion matrix is kept for up to 1,000 classes, and what is right of each class for any number.

    Args:
        num_glimpses: T.
        num_classes: number of classes.
        image_size: side of the images in pixels.
        sync: add up over processes, where there are several; else this process's own.
    """

    full_state_update = False
    correct: Tensor
    loss: Tensor
    windows: Tensor
    squares: Tensor
    hits: Tensor
    found: Tensor
    boxes: Tensor
    per_class: Tensor
    right_per_class: Tensor
    confusion: Tensor

    def __init__(self, num_glimpses: int, num_classes: int, image_size: int, *, sync: bool = True):
        super().__init__(sync_on_compute=sync)
        self.image_size, self.num_classes = image_size, num_classes
        for name in ("correct", "loss", "hits", "found"):
            self.add_state(name, torch.zeros(num_glimpses, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("windows", "squares"):
            self.add_state(name, torch.zeros(num_glimpses, 3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("boxes", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("per_class", "right_per_class"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.confusable = num_classes if num_classes <= MOST_CONFUSED else 0
        confusion = torch.zeros(self.confusable, self.confusable, dtype=torch.long)
        self.add_state("confusion", confusion, dist_reduce_fx="sum")

    def update(self, output: GlimpseOutput, batch: Batch) -> None:
        """Add a batch."""
        predicted = output.logits.argmax(-1)
        self.correct += (predicted == batch.labels[:, None]).sum(0)
        self.loss += glimpse_losses(output.logits, batch.labels).sum(0)
        windows = output.windows.double()
        self.windows += windows.sum(0)
        self.squares += windows.square().sum(0)
        self.per_class += torch.bincount(batch.labels, minlength=self.num_classes)
        right = batch.labels[predicted[:, -1] == batch.labels]
        self.right_per_class += torch.bincount(right, minlength=self.num_classes)
        if self.confusable:
            cells = batch.labels * self.num_classes + predicted[:, -1]
            self.confusion += torch.bincount(cells, minlength=self.num_classes**2).view_as(self.confusion)
        hit = geometry.covered_share(output.windows, batch.boxes[:, None], self.image_size) >= geometry.HIT_SHARE
        hit[:, 0] = False
        self.hits += hit.sum(0)
        self.found += (hit.cumsum(1) > 0).sum(0)
        self.boxes += batch.boxes.isfinite().all(1).sum()

    def compute(self) -> dict[str, Any]:
        """The summary that ``evaluate --json`` prints; accuracies and rates in 0..1, one entry a glimpse.

        ``window_mean`` and ``window_spread`` (standard deviation over images) are of (s, tx, ty) at each glimpse.
        """
        images, boxes = int(self.per_class.sum()), int(self.boxes)
        mean = self.windows / images
        return {
            "num_images": images,
            "accuracy": (self.correct / images).tolist(),
            "loss": (self.loss / images).tolist(),
            "mean_scale": (self.windows[:, 0] / images).tolist(),
            "hit_rate": (self.hits / boxes).tolist() if boxes else None,
            "found_rate": (self.found / boxes).tolist() if boxes else None,
            "window_mean": mean.tolist(),
            "window_spread": (self.squares / images - mean.square()).clamp(min=0).sqrt().tolist(),
        }

"""Classify image files with a trained run, and tell where it looked in each photo's own pixels.

    box in the photo = (box in the square - size / 2) / scale + photo's centre

since resizing, padding and cropping all keep the centre.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from glimpsenet import geometry
from glimpsenet.data.folder import PhotoDataset
from glimpsenet.data.loading import InOrder, create_loader
from glimpsenet.data.sample import Batch
from glimpsenet.errors import MissingError, UnreadableImageError
from glimpsenet.inference.early_exit import NEVER, ExitOutput, ExitRule, Predictor
from glimpsenet.inference.fast import accelerate
from glimpsenet.policies.base import Policy
from glimpsenet.runs import Run
from glimpsenet.tables import Table, counted


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, and how it came to it; glimpse 1 is the first glimpse."""

    file: Path
    classes: list[str]
    image: Float[Tensor, "channel size size"]
    """The square that the model looked at, 0..1."""
    crops: Float[Tensor, "glimpse channel g g"]
    """What it saw, 0..1."""
    probabilities: Float[Tensor, "glimpse class_"]
    """After each glimpse."""
    windows: Float[Tensor, "glimpse 3"]
    """The windows (s, tx, ty)."""
    boxes: Float[Tensor, "glimpse 4"]
    """The windows in pixels of the photo as it stands in the file (upright); parts may lie in the padding."""

    def top(self, glimpse: int, count: int = 1) -> list[tuple[str, float]]:
        """The likeliest classes after ``glimpse`` (1 the first; -1 the last), with their probabilities."""
        values, places = self.probabilities[glimpse - 1 if glimpse > 0 else glimpse].topk(min(count, len(self.classes)))
        return [(self.classes[place], value) for place, value in zip(places.tolist(), values.tolist(), strict=True)]

    def to_dict(self, top: int = 3) -> dict[str, Any]:
        """The entry of ``predict --json``, with the ``top`` likeliest classes of the answer."""
        name, probability = self.top(-1)[0]
        return {
            "file": os.fspath(self.file),
            "class": name,
            "probability": probability,
            "top": [{"class": name, "probability": value} for name, value in self.top(-1, top)],
            "glimpses": [
                {
                    "glimpse": glimpse,
                    "class": self.top(glimpse)[0][0],
                    "probability": self.top(glimpse)[0][1],
                    "window": self.windows[glimpse - 1].tolist(),
                    "box": self.boxes[glimpse - 1].tolist(),
                }
                for glimpse in range(1, len(self.windows) + 1)
            ],
        }


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and why."""

    problem: str


def true_class(file: Path, classes: Sequence[str]) -> str | None:
    """The class that an image file lies in the folder of; None if the folder is called otherwise."""
    folder = file.resolve().parent.name
    return folder if folder in classes else None


def predict(
    run: Run,
    files: str | Path | Sequence[str | Path],
    *,
    batch_size: int = 32,
    policy: Policy | None = None,
    rule: ExitRule = NEVER,
) -> Iterator[Prediction | Unreadable]:
    """Classify image files, in order, on the run's device; an ``Unreadable`` stands for one that cannot be read.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        files: image files of any size and mode; or one of them.
        batch_size: images at a time.
        policy: looks in place of the model's own.
        rule: stop looking at an image when its answer is sure enough; it has as many glimpses as were taken.

    Example:
        >>> run = glimpsenet.load_run("runs/digits")
        >>> for prediction in glimpsenet.predict(run, "photo.png"):
        ...     [(label, probability)] = prediction.top(-1)  # the likeliest class after the last glimpse
        ...     prediction.boxes.shape  # the windows in the photo's pixels
        torch.Size([4, 4])
    """
    files = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    photos = run.config.photos
    transform = photos.augmentation.evaluation_transform(run.config.model.image_size)
    pixels: dict[str, Any] = {"channels": run.channels, "value_range": photos.value_range}
    dataset = PhotoDataset(files, [0] * len(files), transform, **pixels)
    predictor = Predictor(accelerate(run.model), rule)
    for batch in create_loader(dataset, InOrder(len(files)), batch_size):
        yield from (Unreadable(problem) for problem in batch.problems)
        if len(batch.images):
            images = batch.images.to(run.device)
            yield from _predictions(run, files, batch, images, predictor(images, policy=policy))


def _predictions(
    run: Run, files: Sequence[Path], batch: Batch, images: Tensor, output: ExitOutput
) -> Iterator[Prediction]:
    """One an image of a batch, with windows in the photo's own pixels."""
    size = run.config.model.image_size
    with torch.inference_mode():
        seen = run.model.crops(images.float() / 255, output.windows).cpu()
    windows = geometry.window_to_box(output.windows, size).cpu()
    for row, place in enumerate(batch.places.tolist()):
        width, height = batch.photo_sizes[row].tolist()
        scale = run.config.photos.augmentation.square_scale(width, height, size)
        centre = torch.tensor([width, height] * 2) / 2
        taken = int(output.num_glimpses[row])
        yield Prediction(
            file=files[place],
            classes=run.classes,
            image=images[row].float().cpu() / 255,
            crops=seen[row, :taken],
            probabilities=output.glimpse_logits[row, :taken].float().softmax(-1).cpu(),
            windows=output.windows[row, :taken].cpu(),
            boxes=(windows[row, :taken] - size / 2) / scale + centre,
        )


def predict_rows(
    run: Run,
    files: Sequence[str | Path],
    *,
    top: int = 3,
    batch_size: int = 32,
    rule: ExitRule = NEVER,
    skip_bad: bool = False,
) -> tuple[list[dict[str, Any]], list[str]]:
    """:func:`predict` without its pictures: the rows of ``predict --json``, and what was wrong with skipped files.

    Args:
        run: from :func:`~glimpsenet.runs.run.load_run`.
        files: image files.
        top: classes to report for each image.
        batch_size: images at a time.
        rule: when to stop.
        skip_bad: go on without files that cannot be read.

    Raises:
        UserError: for a file that cannot be read, without ``skip_bad``; if none can.
    """
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for prediction in predict(run, files, batch_size=batch_size, rule=rule):
        if isinstance(prediction, Prediction):
            rows.append(prediction.to_dict(top))
        elif skip_bad:
            skipped.append(prediction.problem)
        else:
            raise UnreadableImageError(f"{prediction.problem}; remove the file or skip unreadable images")
    if not rows:
        raise MissingError(f"no readable image among {counted(len(files), 'file')}; the first: {skipped[0]}")
    return rows, skipped


def prediction_table(rows: list[dict[str, Any]], early_exit: bool = False) -> Table:
    """The answer for each image, and what it was after the first glimpse; with early exit, how many it took."""
    columns = ["file", "class", "probability", "after the first glimpse", *(["glimpses"] if early_exit else [])]
    cells = [
        [row["file"], row["class"], f"{row['probability']:.2f}", row["glimpses"][0]["class"], str(len(row["glimpses"]))]
        for row in rows
    ]
    return Table(counted(len(rows), "image"), columns, [line[: len(columns)] for line in cells])


def to_csv(rows: list[dict[str, Any]]) -> str:
    """One line an image: file, class, probability, then class and window (photo pixels) of every glimpse."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    glimpses = max((len(row["glimpses"]) for row in rows), default=0)
    names = [f"{name}_{glimpse}" for glimpse in range(1, glimpses + 1) for name in ("class", "x0", "y0", "x1", "y1")]
    writer.writerow(["file", "class", "probability", *names])
    for row in rows:
        looks = [value for s in row["glimpses"] for value in (s["class"], *(f"{edge:.1f}" for edge in s["box"]))]
        looks += [""] * (5 * glimpses - len(looks))  # after an early exit
        writer.writerow([row["file"], row["class"], f"{row['probability']:.4f}", *looks])
    return text.getvalue()

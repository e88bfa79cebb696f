"""Image folders: train/CLASS/*.jpg and val/CLASS/*.jpg; test/CLASS/*.jpg and boxes.csv where there are any.

Classes are in natural order (2 before 10); a trained run keeps the order it was trained with. What is no image, and
which classes lack some, is said in warnings: see :mod:`glimpsenet.data.finding`.

``boxes.csv`` has the columns file, x0, y0, x1, y1: a path relative to the folder, and a half-open pixel box in the
upright image. It enables hit rates and the oracle; images that it does not name have no box.
"""

import csv
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from glimpsenet.data.config import FolderConfig
from glimpsenet.data.finding import LeftOut, find_classes, find_folders, holds_images, walk_images
from glimpsenet.data.images import HEIF_EXTENSIONS, check_header, read_image
from glimpsenet.data.pixels import ValueRange
from glimpsenet.data.sample import UNKNOWN_BOX, Index, Sample, Splits
from glimpsenet.data.spread import spread_over_classes
from glimpsenet.data.streams import TrainingStream
from glimpsenet.data.transforms import augmentation_of
from glimpsenet.errors import (
    DamagedError,
    DataWarning,
    MissingDataError,
    MissingError,
    UnreadableImageError,
    UserError,
    did_you_mean,
)
from glimpsenet.tables import counted

COLUMNS = ["file", "x0", "y0", "x1", "y1"]
Part = Literal["train", "val", "test"]
MOST_CHECKED = 2000
"""Images of a split, spread over classes, whose headers are read before training: a second or so, or half a minute of a
disk that seeks."""
OTHER_NAMES = {"train": ("training",), "val": ("validation", "valid", "dev"), "test": ("testing",)}
"""What other programs call the splits; only used to say what was found instead."""
MOST_NAMED = 10
"""Classes that a line names."""


class PhotoDataset(Dataset[Sample]):
    """Image files, transformed; the augmentation of a sample follows from (seed, epoch, index) alone.

    Args:
        files: image files.
        labels: class indices, one a file (0 where there are none, to predict).
        transform: torchvision v2 transform, to a square.
        boxes: file -> pixel box.
        channels: 3 for colour, 1 for grey.
        value_range: see :class:`~glimpsenet.data.config.FolderConfig`.
        seed: of the augmentation.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        transform: v2.Transform,
        *,
        boxes: dict[Path, Tensor] | None = None,
        channels: int = 3,
        value_range: ValueRange | None = None,
        seed: int = 0,
    ):
        self.files, self.labels, self.transform = list(files), list(labels), transform
        self.boxes, self.channels, self.value_range, self.seed = boxes or {}, channels, value_range, seed

    @property
    def has_boxes(self) -> bool:
        """Whether the evidence of any image has a known place."""
        return any(file in self.boxes for file in self.files)

    def stream(self, seed: int, **position: int) -> TrainingStream:
        """Shuffled within each epoch."""
        return TrainingStream(len(self), seed, **position)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, address: Index) -> Sample:
        epoch, index = address
        file, label = self.files[index], self.labels[index]
        try:
            photo = tv_tensors.Image(read_image(file, self.channels, self.value_range))
        except UnreadableImageError as error:
            return Sample(index, None, label, problem=str(error))
        height, width = photo.shape[-2:]
        box = self.boxes.get(file, UNKNOWN_BOX)
        if box[0] >= width or box[1] >= height:
            return Sample(index, None, label, problem=f"the box of {file} lies outside its {width} x {height} pixels")
        with augmentation_of(self.seed, epoch, index):
            if box.isnan().any():
                image = self.transform(photo)
            else:
                carried = tv_tensors.BoundingBoxes(box[None], format="XYXY", canvas_size=(height, width))  # pyright: ignore
                image, carried = self.transform(photo, v2.functional.clamp_bounding_boxes(carried))
                box = v2.functional.clamp_bounding_boxes(carried).as_subclass(Tensor)[0].float()
                # Augmentation may have moved it out of sight.
                box = box if (box[2:] > box[:2]).all() else UNKNOWN_BOX
        return Sample(index, image.as_subclass(Tensor), label, box, (width, height))


def open_folder(
    config: FolderConfig,
    image_size: int,
    seed: int,
    classes: list[str] | None = None,
    channels: int = 3,
    *,
    train: bool = False,
) -> Splits:
    """Training, validation and, where there are any, test images of ``config.data``.

    Args:
        config: the folder and what is done to its images.
        image_size: side of the square they become.
        seed: of the augmentation.
        classes: a trained model's classes, whose order is kept; then train/ is neither needed nor read.
        channels: 3 for colour, 1 for grey.
        train: read train/ all the same, to train that model further.

    Raises:
        UserError: naming the folder, class or row of boxes.csv that is wrong.
    """
    root = config.data
    if not root.is_dir():
        raise MissingDataError(f"no such data folder: {root}; it must hold train/CLASS/*.jpg and val/CLASS/*.jpg")
    left_out = LeftOut()
    training = _list_split(root, "train", classes, left_out) if classes is None or train else None
    known = classes if training is None else training.classes
    held_out = {"val": _list_split(root, "val", known, left_out)}
    if (root / "test").is_dir():
        held_out["test"] = _list_split(root, "test", known, left_out)
    left_out.warn()
    _warn_of_empty_classes(held_out)
    if training is not None and not config.skip_bad:
        _check_some_headers(training, held_out.values(), seed)
    boxes = read_boxes(root / "boxes.csv", root) if (root / "boxes.csv").exists() else {}
    pixels: dict[str, Any] = {"channels": channels, "value_range": config.value_range}
    images = None
    if training is not None:
        transform = config.augmentation.training_transform(image_size)
        # AutoAugment moves pixels but cannot move boxes.
        carried = boxes if config.augmentation.keeps_boxes else {}
        images = PhotoDataset(training.files, training.labels, transform, boxes=carried, seed=seed, **pixels)
    transform = config.augmentation.evaluation_transform(image_size)
    datasets = {
        name: PhotoDataset(split.files, split.labels, transform, boxes=boxes, **pixels)
        for name, split in held_out.items()
    }
    return Splits(images, datasets["val"], datasets.get("test"), held_out["val"].classes, channels)


def _check_some_headers(training: "_Listing", held_out: Iterable["_Listing"], seed: int) -> None:
    """Refuse files that cannot be read before training rather than in its first validation."""
    _check_headers([file for file in training.files if file.suffix.lower() in HEIF_EXTENSIONS][:1])
    for split in held_out:
        places = sorted(spread_over_classes(split.labels, MOST_CHECKED, seed))
        _check_headers([split.files[place] for place in places])


class _Listing(NamedTuple):
    """The images of a split."""

    files: list[Path]
    labels: list[int]
    classes: list[str]

    @property
    def empty(self) -> list[str]:
        """Classes without images."""
        seen = set(self.labels)
        return [name for label, name in enumerate(self.classes) if label not in seen]


def _list_split(root: Path, split: Part, classes: list[str] | None, left_out: LeftOut) -> _Listing:
    folder = root / split
    if not folder.is_dir():
        raise MissingError(f"no folder {folder}; {_found_instead(root, split)}")
    here = LeftOut()
    found = find_classes(folder, here)
    if classes is not None and (strange := sorted(set(found) - set(classes), key=found.index)):
        way = did_you_mean(strange[0], classes, "remove it, or train a new run with it")
        raise UserError(f"class '{strange[0]}' is in {folder} but not among the trained ones; {way}")
    listing, present = _Listing([], [], classes or found), set(found)
    passed_over: dict[str, LeftOut] = {}
    for label, name in enumerate(listing.classes):
        passed_over[name] = LeftOut()
        files = _in_order(folder / name, passed_over[name]) if name in present else []
        listing.files.extend(files)
        listing.labels.extend([label] * len(files))
        here.update(passed_over[name])
    if not listing.files:
        raise MissingError(f"no images in {folder}; it holds {here}")
    if split == "train" and listing.empty:
        others = f", and {len(listing.empty) - 1} more such" if len(listing.empty) > 1 else ""
        name = listing.empty[0]
        raise MissingError(
            f"class folder without images: {folder / name} holds {passed_over[name]}{others}; add some or remove it"
        )
    left_out.update(here)
    return listing


def _found_instead(root: Path, split: Part) -> str:
    """What there is in ``root`` in place of a split, and what to do about it."""
    names = find_folders(root)
    if renamed := [name for name in names if name.lower() in (split, *OTHER_NAMES[split])]:
        return f"{root / renamed[0]} is there: rename it to {split}"
    if nested := [name for name in names if (root / name / split).is_dir()]:
        return f"there is {root / nested[0] / split}: name the folder {root / nested[0]}"
    splits = {name for part, others in OTHER_NAMES.items() for name in (part, *others)}
    if classes := [name for name in names if name.lower() not in splits and holds_images(root / name)]:
        return f"{root} holds class folders without splits, {_listed(classes)}: put them into train/ and val/"
    return f"images go into {split}/CLASS/; {root} holds {_listed(names) or 'no folders'}"


def _listed(names: Sequence[str]) -> str:
    others = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return ", ".join([*names[:MOST_NAMED], *others])


def _warn_of_empty_classes(held_out: dict[str, _Listing]) -> None:
    told = [
        f"{counted(len(listing.empty), 'class', 'classes')} in {split}/ ({_listed(listing.empty)})"
        for split, listing in held_out.items()
        if listing.empty
    ]
    if told:
        text = f"no images of {' and of '.join(told)}: their accuracy cannot be measured"
        warnings.warn(text, DataWarning, stacklevel=3)


def _check_headers(files: Sequence[Path]) -> None:
    """Report files that are not images before training: the first validation may come hours later."""
    for file in files:
        try:
            check_header(file)
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{error}; remove the file or skip unreadable images") from error


def _in_order(folder: Path, left_out: LeftOut) -> list[Path]:
    """Images of a class: those of one folder together, folders by name."""
    return sorted(walk_images(folder, left_out), key=lambda file: (str(file.parent), file.name))


def read_boxes(file: Path, root: Path) -> dict[Path, Tensor]:
    """``boxes.csv`` -> image file -> pixel box ``[4]``.

    Raises:
        UserError: naming the file, the row and what is wrong with it.
    """
    boxes: dict[Path, Tensor] = {}
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames is None or not set(COLUMNS) <= set(reader.fieldnames):
                raise DamagedError(f"{file}: the first row must name the columns {','.join(COLUMNS)}")
            for row in reader:
                try:
                    image, box = _read_box(row, root)
                    if image in boxes:
                        raise ValueError(f"'{row['file']}' has a box already; one an image")
                except ValueError as error:
                    raise DamagedError(f"{file}, row {reader.line_num}: {error}") from error
                boxes[image] = box
    except (UnicodeDecodeError, csv.Error) as error:
        raise DamagedError(f"{file} is not CSV in UTF-8: {error}") from error
    except OSError as error:
        raise DamagedError(f"cannot read {file}: {error.strerror}") from error
    return boxes


def _read_box(row: dict[str, str | None], root: Path) -> tuple[Path, Tensor]:
    name, *edges = (row[column] for column in COLUMNS)
    if not name:
        raise ValueError("no file named")
    inside = os.path.normpath(name)
    if os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir:
        raise ValueError(f"'{name}' leads out of the folder; files are named from {root}")
    image = root / inside
    if "\0" in name or not os.path.isfile(image):
        raise ValueError(f"no such image '{name}'")
    try:
        box = torch.tensor([float(edge or "") for edge in edges])
    except ValueError:
        raise ValueError(f"x0, y0, x1, y1 must be numbers, got {edges}") from None
    x0, y0, x1, y1 = box.tolist()
    if not (box.isfinite().all() and 0 <= x0 < x1 and 0 <= y0 < y1):
        raise ValueError(f"a box needs 0 <= x0 < x1 and 0 <= y0 < y1, got {x0:g},{y0:g},{x1:g},{y1:g}")
    return image, box

"""Large data sets: WebDataset shards, tar files of some thousand samples each.

    train-000000.tar ...   val-000000.tar ...   (test-000000.tar ...)
                           members KEY.jpg (or png, ...) and KEY.cls, the class's number in text
    classes.txt            names, one a line, in the order of the numbers
    sizes.json             {"train-000000.tar": 1000, ...}; without it every shard is read once to count

Shards are read through the ``webdataset`` library, one at a time and whole; nothing in them but images and numbers is
decoded. An epoch takes them in an order of its own, and the samples within each: so the k-th sample of training follows
from the seed and k, as it does for folders, and a run resumes at any of them. Every process and worker reads every
shard it needs a sample of.
"""

import bisect
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from glimpsenet.data.config import FolderConfig
from glimpsenet.data.folder import PhotoDataset, open_folder
from glimpsenet.data.images import EXTENSIONS, decode_image
from glimpsenet.data.pixels import ValueRange
from glimpsenet.data.sample import Index, Sample, Splits
from glimpsenet.data.streams import ShardStream
from glimpsenet.data.transforms import augmentation_of
from glimpsenet.errors import DamagedError, MissingError, UnreadableImageError, UserError, first_line, needs_extra
from glimpsenet.files import make_aside, write_json

CLASSES, SIZES = "classes.txt", "sizes.json"


def find_shards(root: Path, split: str) -> list[Path]:
    """The shards of a split, in order; none if the data are not in shards."""
    return sorted(root.glob(f"{split}-*.tar"))


def read_shard(file: Path) -> Iterator[dict[str, Any]]:
    """Its samples, undecoded: ``__key__`` and the members' extensions -> bytes.

    Raises:
        UserError: if it cannot be read, or webdataset is not installed.
    """
    with needs_extra("reading shards", "shards"):
        from webdataset.tariterators import group_by_keys, tar_file_expander
    try:
        # Opened here: the library would expand braces in a name, and run one that says so ("pipe:...").
        with open(file, "rb") as stream:
            yield from group_by_keys(tar_file_expander([{"url": str(file), "stream": stream}]))
    except Exception as error:  # tarfile's and the library's
        raise DamagedError(f"cannot read shard {file}: {first_line(error)}") from error


class ShardDataset(Dataset[Sample]):
    """Images in shards; asked for in the order of ``ShardStream`` or in plain order, each shard is read once.

    Args:
        files: the shards.
        sizes: samples of each.
        num_classes: labels are below it.
        transform: torchvision v2 transform, to a square.
        channels: 3 for colour, 1 for grey.
        value_range: see :class:`~glimpsenet.data.config.FolderConfig`.
        seed: of the augmentation.
    """

    has_boxes = False

    def __init__(
        self,
        files: Sequence[Path],
        sizes: Sequence[int],
        num_classes: int,
        transform: v2.Transform,
        *,
        channels: int = 3,
        value_range: ValueRange | None = None,
        seed: int = 0,
    ):
        self.files, self.sizes, self.num_classes, self.transform = list(files), list(sizes), num_classes, transform
        self.channels, self.value_range, self.seed = channels, value_range, seed
        self._ends = list(itertools.accumulate(sizes))
        self._labels: list[int] | None = None
        self._open: tuple[int, list[dict[str, Any]]] | None = None

    @property
    def labels(self) -> list[int]:
        """The class of each sample, -1 where it cannot be told; reads every shard, once."""
        if self._labels is None:
            self._labels = [self._label_or_unknown(record, file) for file in self.files for record in read_shard(file)]
        return self._labels

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def stream(self, seed: int, **position: int) -> ShardStream:
        """Shard by shard, shuffled within each."""
        return ShardStream(self.sizes, seed, **position)

    def __getitem__(self, address: Index) -> Sample:
        epoch, index = address
        shard = bisect.bisect_right(self._ends, index)
        place = index - (self._ends[shard] - self.sizes[shard])
        try:
            record = self._records(shard)[place]
            photo, label = self._decode(record, self.files[shard])
        except UserError as error:
            return Sample(index, None, 0, problem=str(error))
        height, width = photo.shape[-2:]
        with augmentation_of(self.seed, epoch, index):
            image = self.transform(tv_tensors.Image(photo))
        return Sample(index, image.as_subclass(Tensor), label, photo_size=(width, height))

    def _records(self, shard: int) -> list[dict[str, Any]]:
        """Those of the newest shard are kept."""
        if self._open is None or self._open[0] != shard:
            records = list(read_shard(self.files[shard]))
            if len(records) != self.sizes[shard]:
                found, told = len(records), self.sizes[shard]
                raise DamagedError(f"{self.files[shard]} holds {found} samples, not {told}; correct or remove {SIZES}")
            self._open = shard, records
        return self._open[1]

    def _decode(self, record: dict[str, Any], file: Path) -> tuple[Tensor, int]:
        name = f"{record['__key__']} in {file}"
        found = [key for key in record if f".{key}".lower() in EXTENSIONS]
        if not found:
            raise UnreadableImageError(f"no image {name}; known are {' '.join(EXTENSIONS)}")
        label = self._label(record, file)
        return decode_image(record[found[0]], self.channels, self.value_range, name=f"image {name}"), label

    def _label(self, record: dict[str, Any], file: Path) -> int:
        name = f"{record['__key__']} in {file}"
        try:
            label = int(record["cls"])
        except (KeyError, ValueError):
            raise MissingError(f"no number of a class in the member cls of {name}") from None
        if not 0 <= label < self.num_classes:
            raise DamagedError(f"class {label} of {name} is not in 0..{self.num_classes - 1}, the lines of {CLASSES}")
        return label

    def _label_or_unknown(self, record: dict[str, Any], file: Path) -> int:
        try:
            return self._label(record, file)
        except UserError:  # told with the sample
            return -1


def open_shards(
    config: FolderConfig,
    image_size: int,
    seed: int,
    classes: list[str] | None = None,
    channels: int = 3,
    *,
    train: bool = False,
) -> Splits:
    """Images of shards; see :func:`glimpsenet.data.folder.open_folder`.

    Raises:
        UserError: naming the file that is missing or wrong.
    """
    root = config.data
    try:
        known = [line for line in (root / CLASSES).read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"cannot read {root / CLASSES}, the names of the classes: {first_line(error)}") from error
    if not known:
        raise DamagedError(f"{root / CLASSES} names no class; one a line")
    if classes is not None and known != classes:
        raise DamagedError(f"{root / CLASSES} has other classes than the run, or in another order")
    sizes = _read_sizes(root)

    def split(name: str, transform: v2.Transform) -> ShardDataset:
        files = find_shards(root, name)
        if not files:
            raise MissingError(f"no shards {root / name}-*.tar")
        counts = [sizes[file.name] if file.name in sizes else sum(1 for _ in read_shard(file)) for file in files]
        if not sum(counts):
            raise MissingError(f"no samples in {files[0]} and the shards beside it")
        pixels: dict[str, Any] = {"channels": channels, "value_range": config.value_range}
        return ShardDataset(files, counts, len(known), transform, seed=seed, **pixels)

    training = None
    if classes is None or train:
        training = split("train", config.augmentation.training_transform(image_size))
    transform = config.augmentation.evaluation_transform(image_size)
    test = split("test", transform) if find_shards(root, "test") else None
    return Splits(training, split("val", transform), test, known, channels)


def _read_sizes(root: Path) -> dict[str, int]:
    if not (root / SIZES).exists():
        return {}
    try:
        sizes = json.loads((root / SIZES).read_text())
        if not all(isinstance(size, int) and size >= 0 for size in sizes.values()):
            raise ValueError("sizes are whole numbers")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{root / SIZES} is damaged: {first_line(error)}; remove it to count anew") from error
    return sizes


def write_shards(source: Path, out: Path, size: int, seed: int = 0) -> int:
    """Pack an image folder into shards of ``size`` samples, the files as they are; returns how many.

    Raises:
        UserError: if ``out`` exists and is not empty, the folder is unusable, or webdataset is not installed.
    """
    with make_aside(out) as aside:
        return _fill_with_shards(aside, source, size, seed)


def _fill_with_shards(out: Path, source: Path, size: int, seed: int) -> int:
    with needs_extra("writing shards", "shards"):
        from webdataset.writer import TarWriter
    splits = open_folder(FolderConfig(data=source, skip_bad=True), 1, seed)
    if bad := [name for name in splits.classes if not name.isprintable()]:
        raise UserError(f"class {bad[0]!r} cannot be a line of {CLASSES}; rename its folder")
    sizes: dict[str, int] = {}
    for split, dataset in {"train": splits.train, "val": splits.val, "test": splits.test}.items():
        if dataset is None:
            continue
        assert isinstance(dataset, PhotoDataset)
        order = np.random.default_rng(seed).permutation(len(dataset)) if split == "train" else np.arange(len(dataset))
        for number, places in enumerate(np.split(order, range(size, len(order), size))):
            name = f"{split}-{number:06d}.tar"
            with TarWriter(str(out / name)) as writer:
                for place in places:
                    file, label = dataset.files[place], dataset.labels[place]
                    suffix = file.suffix.lower().removeprefix(".")
                    writer.write({"__key__": f"{place:09d}", suffix: file.read_bytes(), "cls": str(label).encode()})
            sizes[name] = len(places)
    write_json(out / SIZES, sizes)
    (out / CLASSES).write_text("\n".join(splits.classes) + "\n", encoding="utf-8")
    return sum(sizes.values())

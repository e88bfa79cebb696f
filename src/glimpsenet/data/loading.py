"""Data sets opened, and loaders whose order and augmentation follow from the seed alone (``streams.py``)."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from glimpsenet.data.noise import gather, one_warning, start_worker
from glimpsenet.data.sample import Batch, GlimpseDataset, Index, Splits, collate
from glimpsenet.errors import LoaderError, first_line

if TYPE_CHECKING:
    from glimpsenet.config import Config


def open_data(config: "Config", classes: list[str] | None = None, channels: int = 3, *, train: bool = False) -> Splits:
    """The data of an experiment; with ``classes`` and ``channels`` (a trained model's) only what evaluation needs.

    With ``train`` too, to train that model further.

    Raises:
        UserError: naming what is wrong with it.
    """
    return config.data.open(config.model.image_size, config.seed, classes, channels, train=train)


class InOrder(Sampler[Index]):
    """Every sample once, in order; of several processes each takes its share, none twice."""

    def __init__(self, size: int, *, rank: int = 0, world_size: int = 1):
        self.places = range(rank, size, world_size)

    def __iter__(self) -> Iterator[Index]:
        return ((0, index) for index in self.places)

    def __len__(self) -> int:
        return len(self.places)


@contextlib.contextmanager
def workers_that_die() -> Iterator[None]:
    """Where a loader's workers may die, of hunger for memory mostly: says so, instead of torch's process numbers.

    Raises:
        UserError: with what to do.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LoaderError(
            f"a process that reads images died ({first_line(error)}), probably out of memory;"
            " use fewer workers, or none to see the cause"
        ) from error


class _Loader(DataLoader[Batch]):
    """Of batches; what decoders said of their images, in whichever process, is one warning a pass or, within a
    :func:`~glimpsenet.data.noise.one_warning`, a run."""

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _listened_to(super().__iter__())  # workers start now, not with the first batch


def _listened_to(batches: Iterator[Batch]) -> Iterator[Batch]:
    with one_warning():
        for batch in batches:
            gather(batch.noise)
            yield batch


def create_loader(
    dataset: GlimpseDataset, sampler: Sampler[Index], batch_size: int, *, workers: int = 0, pin_memory: bool = False
) -> DataLoader[Batch]:
    """A loader of :class:`~glimpsenet.data.sample.Batch`."""
    assert isinstance(dataset, Dataset)
    return _Loader(
        dataset,
        batch_size,
        sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        # Workers' seeds are drawn from this one: torch's global random numbers stay as they are.
        generator=torch.Generator(),
        pin_memory=pin_memory,
    )

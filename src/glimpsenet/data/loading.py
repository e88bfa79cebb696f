"""Loaders whose order and augmentation follow from the seed alone, and so can be resumed anywhere.

Training is one long stream of samples: epoch after epoch, each in an order of its own. The k-th sample of the stream
is the same whatever came before, so a run resumes by starting the stream at the sample it had come to.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from glimpsenet.config import Config, DigitsConfig
from glimpsenet.data.noise import gather, one_warning, start_worker
from glimpsenet.data.sample import Batch, GlimpseDataset, Index, Splits, collate
from glimpsenet.errors import UserError, first_line


def open_data(config: Config, classes: list[str] | None = None, channels: int = 3, *, train: bool = False) -> Splits:
    """The data of an experiment; with ``classes`` and ``channels`` (a trained model's) only what evaluation needs.

    With ``train`` too, to train that model further.

    Raises:
        UserError: naming what is wrong with it.
    """
    # Each brings its own libraries: imported only where used.
    if isinstance(config.data, DigitsConfig):
        from glimpsenet.data.digits import open_digits

        return open_digits(config.data, config.model.image_size, config.seed)
    from glimpsenet.data.folder import open_folder
    from glimpsenet.data.shards import find_shards, open_shards

    if find_shards(config.data.data, "val"):
        return open_shards(config.data, config.model.image_size, config.seed, classes, channels, train=train)
    return open_folder(config.data, config.model.image_size, config.seed, classes, channels, train=train)


class TrainingStream(Sampler[Index]):
    """Addresses (epoch, index) without end, shuffled within each epoch; of several processes each takes its share.

    Args:
        size: samples an epoch.
        seed: of the order.
        start: samples already used by all processes together.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, size: int, seed: int, *, start: int = 0, rank: int = 0, world_size: int = 1):
        self.size, self.seed, self.start, self.rank, self.world_size = size, seed, start, rank, world_size

    def __iter__(self) -> Iterator[Index]:
        position = self.start + self.rank
        shuffled, order = -1, np.empty(0, int)
        while True:
            epoch, place = divmod(position, self.size)
            if epoch != shuffled:
                shuffled, order = epoch, self.order(epoch)
            yield epoch, int(order[place])
            position += self.world_size

    def order(self, epoch: int) -> np.ndarray:
        """All indices, as they come in an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.size)


class ShardStream(TrainingStream):
    """The same for samples in shards: these in an order of each epoch's own, and the samples within each shard.

    Args:
        sizes: samples of each shard.
        seed: of the order.
        **settings: see :class:`TrainingStream`.
    """

    def __init__(self, sizes: Sequence[int], seed: int, **settings: int):
        super().__init__(sum(sizes), seed, **settings)
        self.sizes = sizes

    def order(self, epoch: int) -> np.ndarray:
        """See :class:`TrainingStream`."""
        random, starts = np.random.default_rng([self.seed, epoch]), np.cumsum([0, *self.sizes])
        shards = random.permutation(len(self.sizes))
        return np.concatenate([starts[shard] + random.permutation(self.sizes[shard]) for shard in shards])


class FreshStream(TrainingStream):
    """The same in plain order, for data that is new in every epoch."""

    def __iter__(self) -> Iterator[Index]:
        position = self.start + self.rank
        while True:
            yield divmod(position, self.size)
            position += self.world_size


class RepeatedBatches(Sampler[Index]):
    """Every batch of a stream several times in a row, for several optimiser steps on each.

    Args:
        stream: endless; starts at the batch to go on with.
        batch_size: samples a batch.
        passes: how often each batch is seen.
        passed: how often the first one was already.
    """

    def __init__(self, stream: Sampler[Index], batch_size: int, passes: int, passed: int = 0):
        self.stream, self.batch_size, self.passes, self.passed = stream, batch_size, passes, passed

    def __iter__(self) -> Iterator[Index]:
        addresses, passed = iter(self.stream), self.passed
        while True:
            batch = [next(addresses) for _ in range(self.batch_size)]
            for _ in range(self.passes - passed):
                yield from batch
            passed = 0


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
        raise UserError(
            f"a process that reads images died ({first_line(error)}), mostly for want of memory;"
            " pass fewer --workers, or --workers 0 to see it fail"
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

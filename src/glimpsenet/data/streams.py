"""Orders of training samples that follow from the seed alone, and so can be resumed anywhere.

Training is one long stream of samples: epoch after epoch, each in an order of its own. The k-th sample of the stream
is the same whatever came before, so a run resumes by starting the stream at the sample it had come to.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from glimpsenet.data.sample import Index


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
        self.size: int = size
        self.seed: int = seed
        self.start: int = start
        self.rank: int = rank
        self.world_size: int = world_size

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

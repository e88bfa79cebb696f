"""A few images that stand for a data set: spread over its classes by a seed.

Files come sorted by class, so that the first ones would be of one class.
"""

import itertools
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from glimpsenet.data.sample import Batch, GlimpseDataset, collate


def spread_over_classes(labels: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Places of ``count`` images: as many of each class as of any other, as long as it has more.

    Round after round takes one image of every class that has any left. Which ones, and the order of the classes, follow
    from the seed; a smaller count gives the beginning of a larger one's list.

    Args:
        labels: the class of each image, or its folder.
        count: all images, in such an order, if there are no more.
        seed: of the choice.

    Returns:
        Indices of ``labels``, none twice.
    """
    images_of: dict[Hashable, list[int]] = {}
    for place in np.random.default_rng(seed).permutation(len(labels)).tolist():
        images_of.setdefault(labels[place], []).append(place)
    rounds = itertools.zip_longest(*images_of.values())
    return list(itertools.islice((place for each in rounds for place in each if place is not None), count))


def spread_over_folders(files: Sequence[Path], count: int, seed: int) -> list[Path]:
    """At most ``count`` of ``files``, in their order: spread over the folders they lie in, which are their classes."""
    return [files[place] for place in sorted(spread_over_classes([file.parent for file in files], count, seed))]


def read_spread(dataset: GlimpseDataset, count: int, seed: int) -> Batch:
    """``count`` images of a data set, spread over its classes by ``seed``, in the data set's order.

    The unusable ones among them are told in the batch's ``problems``.
    """
    chosen = sorted(spread_over_classes(dataset.labels, count, seed))
    return collate([dataset[0, place] for place in chosen])

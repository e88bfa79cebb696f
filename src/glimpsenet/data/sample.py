"""Sample and Batch: what data sets give and models are fed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from glimpsenet.data.noise import Noise, take_along
from glimpsenet.errors import MissingError

if TYPE_CHECKING:
    from glimpsenet.data.streams import TrainingStream

Index = tuple[int, int]
"""(epoch, index): everything random about a sample follows from the seed and these two."""


UNKNOWN_BOX = torch.full((4,), torch.nan)
"""The box of an image of which nobody said where its evidence is."""


class Sample(NamedTuple):
    """One image of a data set; not normalised."""

    place: int
    """Its place in the data set."""
    image: Tensor | None
    """``[channel, size, size]``, uint8 (0..255) or float (0..1); None if it cannot be used."""
    label: int
    box: Tensor = UNKNOWN_BOX
    """Where the evidence is, a pixel box ``[4]``; NaN if unknown."""
    photo_size: tuple[int, int] = (0, 0)
    """Width and height of the photo as it was read."""
    problem: str = ""
    """Why there is no image."""


class Batch(NamedTuple):
    """Samples together; the unusable ones are left out and told in ``problems``."""

    places: Tensor
    images: Tensor
    labels: Tensor
    boxes: Tensor
    photo_sizes: Tensor
    problems: list[str]
    noise: Noise = {}  # noqa: RUF012
    """What libtiff said in the worker process that read these samples, since its batch before."""


class GlimpseDataset(Protocol):
    """A map-style data set whose items are addressed by (epoch, index)."""

    @property
    def has_boxes(self) -> bool:
        """Whether the evidence of any of its images has a known place."""
        ...

    @property
    def labels(self) -> Sequence[int]:
        """The class of each sample, as in epoch 0; -1 where it cannot be told."""
        ...

    def __len__(self) -> int:
        """Samples an epoch."""
        ...

    def stream(self, seed: int, **position: int) -> "TrainingStream":
        """The order in which training asks for them; ``position`` says where to start, see ``TrainingStream``."""
        ...

    def __getitem__(self, address: Index) -> Sample:
        """The sample ``index`` as it is in ``epoch``."""
        ...


Split = Literal["val", "test"]
"""``val`` chooses checkpoints and recipes, ``test`` chooses nothing."""


class Splits(NamedTuple):
    """A data set as training and evaluation want it."""

    train: GlimpseDataset | None
    val: GlimpseDataset
    test: GlimpseDataset | None
    classes: list[str]
    channels: int

    def held_out(self, name: Split | None = None) -> tuple[Split, GlimpseDataset]:
        """The images to measure on, and what their split is called: ``test`` where there is one, else ``val``.

        Raises:
            UserError: if ``test`` is asked for and there is none.
        """
        if name == "test" and self.test is None:
            raise MissingError("the data have no test images: add test/CLASS/, or measure on val")
        if self.test is None or name == "val":
            return "val", self.val
        return "test", self.test


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack the readable samples, where they were read; ``images`` has length 0 if there is none."""
    readable = [sample for sample in samples if sample.image is not None]
    images = [sample.image for sample in readable if sample.image is not None]
    return Batch(
        places=torch.tensor([sample.place for sample in readable], dtype=torch.long),
        images=torch.stack(images) if images else torch.empty(0),
        labels=torch.tensor([sample.label for sample in readable], dtype=torch.long),
        boxes=torch.stack([sample.box for sample in readable]) if readable else torch.empty(0, 4),
        photo_sizes=torch.tensor([sample.photo_size for sample in readable], dtype=torch.long).view(-1, 2),
        problems=[sample.problem for sample in samples if sample.image is None],
        noise=take_along(),
    )

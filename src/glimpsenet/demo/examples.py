"""Examples to pick from: digit scenes drawn when they are asked for, or the images of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glimpsenet.data.finding import find_images
from glimpsenet.data.loading import open_data
from glimpsenet.data.sample import GlimpseDataset
from glimpsenet.data.spread import spread_over_classes
from glimpsenet.demo.pictures import to_png
from glimpsenet.inspection.figures import as_shown
from glimpsenet.runs import Description


@dataclass(frozen=True)
class Example:
    """An image file, as an upload would be."""

    name: str
    label: str | None
    """The true class, where it is known."""
    data: bytes


class MadeExamples(Sequence[Example]):
    """The validation images of a run whose data are made, digit scenes for example."""

    def __init__(self, run: Description):
        self.run = run

    def _open(self) -> GlimpseDataset:
        # A data set keeps what it made last: one of its own for every request, which may come at the same time.
        return open_data(self.run.config, self.run.classes, self.run.channels).val

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, index: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        sample = self._open()[0, index]
        assert sample.image is not None  # it is made, not read
        picture = (as_shown(sample.image) * 255).round().byte()
        return Example(f"scene {index + 1}", self.run.classes[sample.label], to_png(picture))


class FolderExamples(Sequence[Example]):
    """The images of a folder, in an order in which classes take turns; the true class is the folder's name, if the
    model knows such a class.

    Raises:
        UserError: if there is no such folder, or no image in it.
    """

    def __init__(self, folder: Path, classes: Sequence[str], seed: int):
        files = find_images(folder)
        order = spread_over_classes([file.parent for file in files], len(files), seed)
        self.files, self.classes = [files[place] for place in order], classes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        file = self.files[index]
        folder = file.resolve().parent.name
        return Example(file.name, folder if folder in self.classes else None, file.read_bytes())


def choose_examples(run: Description, folder: Path | None, *, public: bool) -> Sequence[Example]:
    """What visitors may pick.

    Args:
        run: on show first.
        folder: to take images from.
        public: whether others than this machine can ask; then no image is offered that was not named by ``folder``.

    Raises:
        UserError: if the folder holds no image.
    """
    if folder is not None:
        return FolderExamples(folder, run.classes, run.config.seed)
    home = run.config.data.folder
    if home is None:
        return MadeExamples(run)
    own = home / "val"
    return [] if public or not own.is_dir() else FolderExamples(own, run.classes, run.config.seed)

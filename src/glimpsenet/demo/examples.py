"""Examples to pick from: digit scenes generated on request, or the images of a folder."""

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
    """An image file, like an upload."""

    name: str
    label: str | None
    """The true class, if known."""
    data: bytes


class MadeExamples(Sequence[Example]):
    """The validation images of a run on generated data, such as digit scenes."""

    def __init__(self, run: Description):
        self.run = run

    def _open(self) -> GlimpseDataset:
        # A dataset caches its last scene, and requests may be concurrent: open one per request.
        return open_data(self.run.config, self.run.classes, self.run.channels).val

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, index: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        sample = self._open()[0, index]
        assert sample.image is not None  # generated, not read from a file
        picture = (as_shown(sample.image) * 255).round().byte()
        return Example(f"scene {index + 1}", self.run.classes[sample.label], to_png(picture))


class FolderExamples(Sequence[Example]):
    """The images of a folder, with classes taking turns; the true class is the folder's name, if the model has that
    class.

    Raises:
        UserError: if the folder does not exist or contains no images.
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
    """The examples that visitors can pick.

    Args:
        run: the first run shown.
        folder: images to offer; if None, the run's validation images.
        public: whether other machines can connect; if so, image files are offered only from ``folder``.

    Raises:
        UserError: if the folder contains no images.
    """
    if folder is not None:
        return FolderExamples(folder, run.classes, run.config.seed)
    home = run.config.data.folder
    if home is None:
        return MadeExamples(run)
    own = home / "val"
    return [] if public or not own.is_dir() else FolderExamples(own, run.classes, run.config.seed)

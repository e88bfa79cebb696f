"""Examples to pick from: digit scenes drawn when they are asked for, or the images of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glimpsenet.config import DigitsConfig
from glimpsenet.data.digits import CLASSES, DigitScenes
from glimpsenet.data.finding import find_images
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


class DigitExamples(Sequence[Example]):
    """The validation scenes of a digit run, which never saw their digits; their classes are drawn, not sorted."""

    def __init__(self, config: DigitsConfig, image_size: int):
        self.config, self.image_size = config, image_size

    def __len__(self) -> int:
        return self.config.val_scenes

    def __getitem__(self, index: int) -> Example:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A data set keeps the scenes it drew last: one of its own for every request, which may come at the same time.
        sample = DigitScenes(self.config, "val", self.image_size)[0, index]
        assert sample.image is not None  # scenes are made, not read
        picture = (as_shown(sample.image) * 255).round().byte()
        return Example(f"scene {index + 1}", CLASSES[sample.label], to_png(picture))


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
    data = run.config.data
    if isinstance(data, DigitsConfig):
        return DigitExamples(data, run.config.model.image_size)
    own = data.data / "val"
    return [] if public or not own.is_dir() else FolderExamples(own, run.classes, run.config.seed)

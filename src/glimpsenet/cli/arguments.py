"""Arguments that several commands share, each explained once; and checks of their values."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from glimpsenet.errors import SettingError

if TYPE_CHECKING:
    from glimpsenet.runs import Run

FLAT = arg(name="")
"""Of a dataclass of settings: its fields are flags like all others, and those of a kind begin with the family."""
RunFolder = Annotated[Positional[Path], arg(metavar="RUN", help="run folder.")]
RunFolders = Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN...", help="run folders.")]
ImageFile = Annotated[Positional[Path], arg(metavar="IMAGE", help="image file.")]
Destination = Annotated[Positional[Path], arg(metavar="DEST", help="a new folder.")]
Device = Annotated[str, arg(help="auto, cpu, cuda, cuda:1, mps.")]
BatchSize = Annotated[int, arg(help="images at a time.")]
SkipBad = Annotated[bool, arg(help="skip unreadable images, and count them.")]
Json = Annotated[bool, arg(help="one JSON object on standard output.")]
Figure = Annotated[Path, arg(help="picture to write (png, pdf, svg).")]
JsonFile = Annotated[Path, arg(help="JSON file to write.")]
Records = Annotated[
    Path | None, arg(help="folder of one JSON a finished run, which is not trained again; OUT/records if not given.")
]


def load(run: Path, device: str = "cpu") -> "Run":
    """A run, on a device by name."""
    from glimpsenet.devices import choose_device
    from glimpsenet.runs import load_run

    return load_run(run, choose_device(device))


def load_all(runs: tuple[Path, ...], device: str = "cpu") -> "list[Run]":
    """Several runs.

    Raises:
        SettingError: for none.
    """
    if not runs:
        raise SettingError("no runs: name run folders")
    return [load(run, device) for run in runs]


def check_picture(file: Path | None) -> None:
    """Refuse a picture of a format that is not written.

    Raises:
        SettingError: naming those that are.
    """
    if file is not None and file.suffix not in (".png", ".pdf", ".svg"):
        raise SettingError(f"--figure {file}: pictures are written as .png, .pdf or .svg")

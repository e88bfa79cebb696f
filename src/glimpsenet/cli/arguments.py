"""Arguments that several commands share, each explained once; and checks of their values."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from glimpsenet.errors import SettingError

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


def at_least(least: int, **flags: int | tuple[int, ...]) -> None:
    """Refuse flags with values that are too small, or with none.

    Raises:
        SettingError: naming the flag.
    """
    for name, value in flags.items():
        values = value if isinstance(value, tuple) else (value,)
        if not values or min(values) < least:
            shown = " ".join(map(str, values))
            raise SettingError(f"--{name.replace('_', '-')} must be {least} or more, got {shown}")


def check_picture(file: Path | None) -> None:
    """Refuse a picture of a format that is not written.

    Raises:
        SettingError: naming those that are.
    """
    if file is not None and file.suffix not in (".png", ".pdf", ".svg"):
        raise SettingError(f"--figure {file}: pictures are written as .png, .pdf or .svg")

"""Which files of a folder are images, and which of its folders are classes.

Folders as people have them hold more than images: what operating systems, editors and storage devices leave there is
junk, and other files are told by their suffix. Neither is an image or a class; a :class:`LeftOut` counts them, and
warns once.
"""

import itertools
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from glimpsenet.data.images import EXTENSIONS
from glimpsenet.errors import DamagedError, DataWarning, MissingError, did_you_mean
from glimpsenet.tables import counted

JUNK = frozenset(("@eadir", "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin"))
"""Names of junk, in lower case (Windows spells its own either way); all names that begin with a dot are junk too."""
MOST_KINDS = 6
"""Kinds of what was left out that a line names, the most frequent ones."""


def is_junk(name: str) -> bool:
    """Whether an entry of this name is never an image and never a class."""
    return name.startswith(".") or name.lower() in JUNK


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts names by the value of the numbers in them: ``class 2`` before ``class 10``."""
    parts = re.split(r"(\d+)", name)  # texts and numbers take turns, so that like is compared with like
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


class Tally:
    """Entries that were left out for one reason, by kind, and where they are.

    Args:
        one: what one of them is called.
        many: what several are called.
    """

    def __init__(self, one: str, many: str):
        self.one, self.many = one, many
        self.kinds: Counter[str] = Counter()
        self.folders: dict[Path, None] = {}

    def add(self, folder: Path, kind: str) -> None:
        """Count an entry of ``folder``."""
        self.kinds[kind] += 1
        self.folders[folder] = None

    def update(self, other: "Tally") -> None:
        """Count what another one has counted."""
        self.kinds.update(other.kinds)
        self.folders |= other.folders

    def __str__(self) -> str:
        """How many there are of each kind, the most frequent first."""
        total, named = self.kinds.total(), self.kinds.most_common(MOST_KINDS)
        shown = [f"{kind} {count}" for kind, count in named]
        if others := total - sum(count for _, count in named):
            shown.append(f"others {others}")
        return f"{counted(total, self.one, self.many)} ({', '.join(shown)})"

    @property
    def places(self) -> str:
        """The first of the folders they are in, and how many others there are."""
        others = len(self.folders) - 1
        return f"{next(iter(self.folders))}" + (f" and {counted(others, 'other folder')}" if others else "")


class LeftOut:
    """What was left out while folders were listed: junk, files whose suffix is no image's, images of no class."""

    def __init__(self) -> None:
        self.junk = Tally("hidden or junk entry", "hidden or junk entries")
        self.unknown = Tally("file with an unknown suffix", "files with an unknown suffix")
        self.loose = Tally("image outside the class folders", "images outside the class folders")

    @property
    def tallies(self) -> list[Tally]:
        """Those that counted something."""
        return [tally for tally in (self.junk, self.unknown, self.loose) if tally.kinds]

    def add_junk(self, folder: Path, name: str) -> None:
        """Count junk, by name; the companions that macOS gives each file (``._NAME``) are one kind."""
        self.junk.add(folder, "._*" if name.startswith("._") else name)

    def add_file(self, folder: Path, name: str) -> None:
        """Count a file that is no image, by suffix."""
        self.unknown.add(folder, os.path.splitext(name)[1].lower() or "none")

    def add_loose(self, folder: Path, name: str) -> None:
        """Count an image that lies beside the class folders, by suffix."""
        self.loose.add(folder, os.path.splitext(name)[1].lower())

    def update(self, other: "LeftOut") -> None:
        """Count what another one has counted."""
        self.junk.update(other.junk)
        self.unknown.update(other.unknown)
        self.loose.update(other.loose)

    def __str__(self) -> str:
        """All of it, for an error about a folder without images."""
        return ", ".join(map(str, self.tallies)) or "nothing"

    def warn(self) -> None:
        """Warn in one line for each reason, saying how many and where; call it once, when all is listed."""
        for tally in self.tallies:
            warnings.warn(f"left out {tally} in {tally.places}", DataWarning, stacklevel=3)


def find_classes(folder: Path, left_out: LeftOut) -> list[str]:
    """The class folders in ``folder``, in natural order (2 before 10).

    Raises:
        UserError: if it cannot be read or has none.
    """
    classes: list[str] = []
    for entry in _entries(folder):
        if is_junk(entry.name):
            left_out.add_junk(folder, entry.name)
        elif _is_folder(entry):
            classes.append(entry.name)
        elif _is_image(entry.name):
            left_out.add_loose(folder, entry.name)
        else:
            left_out.add_file(folder, entry.name)
    if not classes:
        raise MissingError(f"no class folders in {folder}; it holds {left_out}: images go into {folder / 'CLASS'}")
    return sorted(classes, key=natural_key)


def walk_images(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Image files of a folder and of all folders below, in no order to rely on.

    Links are followed (ImageNet100 is made of them), but no folder is entered twice and none above ``folder``: a link
    that leads back ends there.

    Args:
        folder: to look through, whatever its own name is.
        left_out: counts what is no image.

    Raises:
        UserError: naming a folder that cannot be read.
    """
    entered = {_identity(above) for above in folder.resolve().parents}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        entries = _entries(here, entered)
        folders: list[str] = []
        for entry in entries:
            if is_junk(entry.name):
                left_out.add_junk(here, entry.name)
            elif _is_folder(entry):
                folders.append(entry.name)
            elif _is_image(entry.name):
                yield here / entry.name  # links to nowhere and the like too: whoever reads them tells what they are
            else:
                left_out.add_file(here, entry.name)
        waiting += [here / name for name in reversed(folders)]


def find_folders(folder: Path) -> list[str]:
    """The names of the folders in ``folder`` that are not junk, sorted."""
    return [entry.name for entry in _entries(folder) if _is_folder(entry) and not is_junk(entry.name)]


def holds_images(folder: Path) -> bool:
    """Whether there are images in ``folder`` itself."""
    return any(_is_image(entry.name) and not is_junk(entry.name) for entry in _entries(folder))


def _entries(folder: Path, entered: set[tuple[int, int]] | None = None) -> "list[os.DirEntry[str]]":
    """What is in a folder, by name; nothing if it was ``entered`` before."""
    try:
        if entered is not None:
            if (identity := _identity(folder)) in entered:
                return []
            entered.add(identity)
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DamagedError(f"cannot read the folder {folder}: {error.strerror}; remove it or repair it") from error


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def find_images(*paths: str | Path, left_out: LeftOut | None = None) -> list[Path]:
    """Image files, path by path: those of a folder and all folders below, sorted, or the path itself if it is a file.

    Args:
        paths: folders and files; a file that is named outright is taken, whatever it is called.
        left_out: counts what is no image, for whoever warns; warns by itself if not given.

    Raises:
        UserError: naming a path at which there is nothing, or a folder without images.
    """
    total = LeftOut() if left_out is None else left_out
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise MissingError(f"no such file or folder: {path}; {_way_to(path)}")
        here = LeftOut()
        found = sorted(walk_images(path, here)) if path.is_dir() else [path]
        if not found:
            raise MissingError(f"no images in {path}; it holds {here}: images end in {' '.join(EXTENSIONS)}")
        files += found
        total.update(here)
    if left_out is None:
        total.warn()
    return files


def _way_to(path: Path) -> str:
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [other.name for other in itertools.islice(beside, 1000)]
    return did_you_mean(path.name, names, "name image files, or folders of them")

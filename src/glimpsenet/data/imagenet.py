"""ImageNet100: the first 100 classes of ImageNet-1k, as links into a copy of it.

    classes = first 100 of sorted(WordNet ids of ImageNet-1k) = n01440764 ... n01855672

No list is shipped and no image copied: the classes are computed from the copy at hand, and each becomes a symbolic link
to its folder. The same subset of ImageNet-C (Hendrycks & Dietterich 2019) tests robustness.

Source of the subset: Tan et al. 2021 (MGNet), taken over by Supeene & Wang.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from glimpsenet.data.config import CORRUPTIONS
from glimpsenet.data.finding import LeftOut, is_junk
from glimpsenet.errors import DamagedError, MissingError, UserError

SPLITS = ("train", "val")
ALL_CLASSES, CHOSEN_CLASSES = 1000, 100
FIRST_CLASS, LAST_CLASS = "n01440764", "n01855672"
"""First and 100th of ImageNet-1k's sorted WordNet ids: a copy in which they differ is another ImageNet."""

GROUPS = ("noise", "blur", "weather", "digital", "extra")
"""ImageNet-C's archives: unpacked as they come, the corruptions lie in folders of these names."""
SEVERITIES = ("1", "2", "3", "4", "5")

_CLASS_NAME = re.compile(r"n\d{8}", re.ASCII)


class Links(NamedTuple):
    """What building a subset did, in class folders."""

    made: int
    kept: int
    """Links that an earlier run had made."""


def build_imagenet100(source: Path, destination: Path) -> Links:
    """Link ImageNet100 as an image folder: DEST/train/CLASS and DEST/val/CLASS.

    Running it again completes what is missing; nothing is ever deleted or overwritten.

    Args:
        source: a copy of ImageNet-1k: ``train/nXXXXXXXX/*.JPEG`` and ``val/nXXXXXXXX/*.JPEG``, 1000 classes each.
        destination: a folder outside of it: new, or left by an earlier run.

    Raises:
        UserError: naming what ``source`` lacks, or what in ``destination`` is not from here.
    """
    source, destination = _check_places(source, destination)
    left_out = LeftOut()
    expected = "an ImageNet-1k copy has train/ and val/"
    classes = {split: _list_classes(source / split, expected, left_out) for split in SPLITS}
    _check_same(source, classes["train"], classes["val"])
    for split in SPLITS:
        _check_count(source / split, classes[split])
    left_out.warn()
    chosen = classes["train"][:CHOSEN_CLASSES]
    return _link(destination, {Path(split, name): source / split / name for split in SPLITS for name in chosen})


def build_imagenet100_c(source: Path, destination: Path) -> Links:
    """Link ImageNet100's classes of ImageNet-C: DEST/CORRUPTION/SEVERITY/CLASS, 15 corruptions, severities 1..5.

    Running it again completes what is missing; nothing is ever deleted or overwritten.

    Args:
        source: a copy of ImageNet-C: ``CORRUPTION/SEVERITY/nXXXXXXXX/*.JPEG``, or the same under noise/, blur/,
            weather/, digital/ and extra/. Other corruptions are ignored.
        destination: a folder outside of it: new, or left by an earlier run.

    Raises:
        UserError: naming what ``source`` lacks, or what in ``destination`` is not from here.
    """
    source, destination = _check_places(source, destination)
    found = _find_corruptions(source)
    links: dict[Path, Path] = {}
    left_out = LeftOut()
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            folder = found[corruption] / severity
            classes = _list_classes(folder, "ImageNet-C has severities 1 to 5 of each corruption", left_out)
            _check_count(folder, classes)
            links |= {Path(corruption, severity, name): folder / name for name in classes[:CHOSEN_CLASSES]}
    left_out.warn()
    return _link(destination, links)


def _check_places(source: Path, destination: Path) -> tuple[Path, Path]:
    """Both as absolute paths, so that links hold from wherever they are followed."""
    if not source.is_dir():
        raise MissingError(f"no such folder: {source}")
    place = destination.resolve()
    if place.is_relative_to(source.resolve()):
        raise UserError(f"{destination} lies inside {source}, which is left as it is; choose a folder outside")
    return source.resolve(), place


def _list_classes(folder: Path, expected: str, left_out: LeftOut) -> list[str]:
    """The class folders in ``folder``, sorted; other folders (lost+found, say) do not count."""
    if not folder.is_dir():
        raise MissingError(f"no folder {folder}: {expected}")
    with os.scandir(folder) as entries:
        flat, classes = False, []
        for entry in entries:
            if is_junk(entry.name):
                left_out.add_junk(folder, entry.name)
            elif entry.name.lower().endswith((".jpeg", ".jpg")):
                flat = True
            elif _CLASS_NAME.fullmatch(entry.name) and entry.is_dir():
                classes.append(entry.name)
    if flat and not classes:
        raise DamagedError(
            f"the images in {folder} lie flat, without class folders;"
            f" sort them into {folder / FIRST_CLASS} and so on first"
        )
    return sorted(classes)


def _check_same(source: Path, train: list[str], val: list[str]) -> None:
    for split, other in (("val", sorted(set(train) - set(val))), ("train", sorted(set(val) - set(train)))):
        if other:
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            raise MissingError(f"{source / split} lacks the class folder {other[0]}{more}, which the other split has")


def _check_count(folder: Path, classes: list[str]) -> None:
    if len(classes) != ALL_CLASSES:
        raise DamagedError(
            f"{folder} is not ImageNet-1k's: it has {len(classes)} class folders (n and 8 digits), not {ALL_CLASSES}"
        )
    ends = classes[0], classes[CHOSEN_CLASSES - 1]
    if ends != (FIRST_CLASS, LAST_CLASS):
        raise DamagedError(
            f"{folder} is not ImageNet-1k's: its first and 100th classes are {ends[0]} and {ends[1]},"
            f" not {FIRST_CLASS} and {LAST_CLASS}"
        )


def _find_corruptions(source: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for corruption in CORRUPTIONS:
        for folder in (source / corruption, *(source / group / corruption for group in GROUPS)):
            if folder.is_dir():
                found.setdefault(corruption, folder)
    if missing := [corruption for corruption in CORRUPTIONS if corruption not in found]:
        raise MissingError(
            f"{source} lacks {len(missing)} of ImageNet-C's 15 corruptions: {', '.join(missing)};"
            " unpack the archives that hold them there"
        )
    return found


def _link(destination: Path, links: dict[Path, Path]) -> Links:
    """Make the links, place below ``destination`` -> folder, that are not there; anything else there is an error."""
    try:
        kept = _check_existing(destination, links)
        for place, target in links.items():
            if place not in kept:
                (destination / place).parent.mkdir(parents=True, exist_ok=True)
                (destination / place).symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise UserError(f"cannot make links in {destination}: {error}") from error
    return Links(len(links) - len(kept), len(kept))


def _check_existing(destination: Path, links: dict[Path, Path]) -> set[Path]:
    """The links that are there already; looks at everything before anything is changed."""
    folders = {parent for place in links for parent in place.parents}
    kept: set[Path] = set()
    for folder in sorted(folders):  # outer folders first
        path = destination / folder
        # A link here could lead into the source, and what is made below it would end up there.
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UserError(f"{path} should be a folder of links; remove it, or choose another destination")
        for entry in sorted(path.iterdir()) if path.exists() else []:
            place = folder / entry.name
            if place in links:
                if not (entry.is_symlink() and entry.exists() and entry.samefile(links[place])):
                    raise UserError(f"{entry} is no link to {links[place]}; remove it, or choose another destination")
                kept.add(place)
            # boxes.csv is the user's own to add, and junk is nobody's.
            elif place not in folders and place != Path("boxes.csv") and not is_junk(entry.name):
                raise UserError(f"{entry} does not belong there; move it away, or choose another destination")
    return kept

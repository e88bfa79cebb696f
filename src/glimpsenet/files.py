"""Writing without losing what was there: write aside in the same folder, flush to disk, then rename."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glimpsenet.errors import UserError


@contextlib.contextmanager
def write_aside(file: Path) -> Iterator[Path]:
    """A name beside ``file`` to write to; it takes ``file``'s place once the block ends well.

    After an error, a full disk say, ``file`` is as it was and nothing is left beside it.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        aside.touch()
        mode = aside.stat().st_mode
        yield aside
        with open(aside, "rb+") as stream:
            os.fsync(stream.fileno())
        aside.chmod(mode)  # safetensors writes files that only their owner may read
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def make_aside(folder: Path) -> Iterator[Path]:
    """The same for a new folder: one beside it to fill, which takes its place once the block ends well.

    Raises:
        UserError: if ``folder`` exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; choose another")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what :func:`write_aside` and :func:`make_aside` left in a folder when their process was killed."""
    for left in folder.glob(".*.part"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    """``value`` as readable JSON."""
    with write_aside(file) as aside:
        aside.write_text(json.dumps(value, indent=2, default=str) + "\n")

"""Writing without losing what was there: write aside in the same folder, flush to disk, then rename."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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


def remove_unfinished(folder: Path) -> None:
    """Remove what :func:`write_aside` left in a folder when its process was killed."""
    for file in folder.glob(".*.part"):
        file.unlink(missing_ok=True)


def write_json(file: Path, value: Any) -> None:
    """``value`` as readable JSON."""
    with write_aside(file) as aside:
        aside.write_text(json.dumps(value, indent=2, default=str) + "\n")

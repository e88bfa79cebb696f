"""The committed JSON results behind the pages, and how missing ones are reported."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = "benchmarks/results"
REPORT = "docs/reproduction/report.json"
"""The report of ``glimpsenet reproduce``, which lies beside its pictures."""

SAID = ("command", "split", "seeds", "machine")
"""What results of training say since there is a test split; older ones count as not measured."""


class NotMeasuredError(LookupError):
    """A file or an entry that a page needs is not there: it was never measured, or in another way."""


class Results:
    """What a checkout's JSON files hold."""

    def __init__(self, root: Path):
        self.root = root
        self._read = cache(self._load)

    def _load(self, name: str) -> dict[str, Any]:
        file = self.root / (name if name == REPORT else f"{FOLDER}/{name}")
        if not file.exists():
            raise NotMeasuredError(f"there is no {file}")
        return json.loads(file.read_text())

    def read(self, name: str, *required: str) -> dict[str, Any]:
        """The whole of one file.

        Args:
            name: of a file in ``benchmarks/results``, or ``REPORT``.
            required: keys that it must have.

        Raises:
            NotMeasuredError: naming the file or the first missing key.
        """
        for key in required:
            self.entry(name, key)
        return self._read(name)

    def entry(self, name: str, *path: str | int) -> Any:
        """One entry of a file, by the keys and places that lead to it.

        Raises:
            NotMeasuredError: naming the file, or the entry that it lacks.
        """
        value: Any = self._read(name)
        for depth, key in enumerate(path, 1):
            try:
                value = value[key]
            except (KeyError, IndexError) as error:
                raise NotMeasuredError(f"{name} has no {'.'.join(map(str, path[:depth]))}") from error
        if value is None:
            raise NotMeasuredError(f"{name} has nothing in {'.'.join(map(str, path))}")
        return value

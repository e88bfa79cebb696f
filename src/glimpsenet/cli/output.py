"""What commands write: lines, JSON alone on standard output, warnings in one line each."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from glimpsenet.errors import DataWarning, FigureWarning, printable
from glimpsenet.tables import Table, print_table

OWN_WARNINGS = (DataWarning, FigureWarning)


def say(*parts: "str | Table") -> None:
    """Lines and tables on standard output, at once."""
    for part in parts:
        if isinstance(part, str):
            print(part, flush=True)
        else:
            print_table(*part)


@contextlib.contextmanager
def standard_output(clean: bool) -> Iterator[TextIO]:
    """Standard output for the result; with ``clean`` whatever a library prints meanwhile goes to standard error."""
    if not clean:
        yield sys.stdout
        return
    sys.stdout.flush()
    keep = os.dup(1)
    os.dup2(2, 1)
    try:
        # File names that are no UTF-8 leave as the bytes they are.
        with open(keep, "w", closefd=False, encoding="utf-8", errors="surrogateescape") as output:
            yield output
    finally:
        sys.stdout.flush()
        os.dup2(keep, 1)
        os.close(keep)


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Warnings of this library reach standard error as one line each, none twice; all others as Python shows them."""
    told: set[str] = set()
    show = warnings.showwarning

    def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        text = printable(" ".join(str(message).split()))
        if not issubclass(category, OWN_WARNINGS):
            show(message, category, *where, **more)
        elif text not in told:
            told.add(text)
            print(f"glimpsenet: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        for category in OWN_WARNINGS:
            warnings.simplefilter("always", category)
        warnings.showwarning = tell
        yield

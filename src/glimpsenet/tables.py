"""Tables on the terminal."""

import sys
from typing import NamedTuple

from glimpsenet.errors import printable


class Table(NamedTuple):
    """A table of text; the first column is a name, the others are numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2 images``; with the plural of nouns that do not just take an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table: the first column left, numbers right; not folded into a file or pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(
            column, justify="left" if place == 0 or column == "mostly taken for" else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    # Into a file or pipe, rows are not folded.
    Console(width=None if sys.stdout.isatty() else 1000).print(table, highlight=False)

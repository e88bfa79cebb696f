"""Fill README and docs pages from results in the repository: no measured number is typed by hand.

    <!-- figures: NAME --> ... <!-- end of figures -->    a table, from page_tables.py or page_readme.py
    <!--n NAME-->0.991<!--/n-->                           a number inside a sentence or a cell, from page_numbers.py

Both are rewritten from ``benchmarks/results/*.json`` and ``docs/reproduction/report.json``; a missing measurement is
stated. GitHub and Sphinx show neither marker.

Command: ``python benchmarks/page_figures.py``; ``--check`` only checks whether the pages are up to date
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from glimpsenet.errors import UserError
from page_numbers import NUMBERS
from page_readme import MISSING, first_table, measured
from page_results import NotMeasuredError, Results
from page_tables import TABLES

ALL_TABLES = TABLES | {"measured": measured, "readme": first_table}
T = TypeVar("T")
TABLE = re.compile(r"(?P<start><!-- figures: (?P<name>[\w-]+) -->)\n.*?(?P<end><!-- end of figures -->)", re.DOTALL)
NUMBER = re.compile(r"(?P<start><!--n (?P<name>[\w-]+)-->)[^\n]*?(?P<end><!--/n-->)")

AT_A_LINES_START = re.compile(r"^(?:[ >]|[*+-] |\d+\. )*(<!--n [\w-]+-->)", re.MULTILINE)


def pages(root: Path) -> list[Path]:
    """What may have markers."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def fill(page: str, results: Results, tell: Callable[[str], None] = lambda text: None) -> str:
    """The page with every table and number written anew.

    Args:
        page: its Markdown.
        results: what they are made of.
        tell: called with what is not measured.

    Raises:
        UserError: for a name that there is not, a marker without its other half, or one at the start of a line.
    """

    def table(match: re.Match[str]) -> str:
        try:
            lines = _known(ALL_TABLES, match["name"])(results)
        except NotMeasuredError as error:
            tell(f"{match['name']}: {error}")
            lines = [f"{MISSING.capitalize()}."]
        return "\n".join([match["start"], "", *lines, "", match["end"]])

    def number(match: re.Match[str]) -> str:
        try:
            text = _known(NUMBERS, match["name"])(results)
        except NotMeasuredError as error:
            tell(f"{match['name']}: {error}")
            text = MISSING
        return match["start"] + text + match["end"]

    for pattern, halves in ((TABLE, ("<!-- figures:", "<!-- end of figures -->")), (NUMBER, ("<!--n", "<!--/n-->"))):
        found = len(pattern.findall(page))
        for half in halves:
            if page.count(half) != found:
                raise UserError(f"{page.count(half)} times '{half}', but {found} whole markers")
    if match := AT_A_LINES_START.search(page):
        raise UserError(f"'{match[1]}' begins a line, which ends the paragraph in Markdown: put a word before it")
    return NUMBER.sub(number, TABLE.sub(table, page))


def _known(functions: dict[str, Callable[[Results], T]], name: str) -> Callable[[Results], T]:
    if name not in functions:
        raise UserError(f"nothing is called '{name}'; there are {', '.join(functions)}")
    return functions[name]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=Path())
    chosen = parser.parse_args(arguments)
    results, stale = Results(chosen.root), []
    for file in pages(chosen.root):
        page = file.read_text()
        try:
            filled = fill(page, results, lambda text, file=file: print(f"{file}: not measured: {text}"))
        except UserError as error:
            sys.exit(f"{file}: {error}")
        if filled != page:
            stale.append(str(file))
            if not chosen.check:
                file.write_text(filled)
    if stale and chosen.check:
        sys.exit(f"{', '.join(stale)}: not as the results have it; run python benchmarks/page_figures.py")


if __name__ == "__main__":
    main()

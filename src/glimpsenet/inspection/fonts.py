"""Text of figures in any script: characters missing from a text's font come from other installed fonts.

Matplotlib falls back from font to font within a text, but only along a given list. Here the list is built for the
missing characters; fonts are searched only if any are missing, and once for each set of characters.
"""

import functools
import warnings
from collections.abc import Iterator, Set
from contextlib import contextmanager

from matplotlib import font_manager
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from glimpsenet.errors import FigureWarning

PLACEHOLDERS = ("lastresort", "adobeblank")
"""Fonts that claim to have every character, but show a box or nothing."""


@contextmanager
def readable_text(figure: Figure) -> Iterator[None]:
    """Context for drawing a figure: gives its text fonts that have all its characters.

    Warns:
        FigureWarning: once, naming all characters that are in no installed font.
    """
    lacking = {text: characters for text in _texts(figure) if (characters := _lacking(text))}
    needed = frozenset[str]().union(*lacking.values())
    names, missing = find_fonts(needed) if needed else ((), needed)
    for text in lacking:
        text.set_fontfamily(list(dict.fromkeys([*text.get_fontfamily(), *names])))
    if missing:
        shown = " ".join(sorted(missing)[:20]) + (" ..." if len(missing) > 20 else "")
        warnings.warn(
            f"no installed font has {shown}: figures show boxes in their place; install a font for that script",
            FigureWarning,
            stacklevel=3,
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")  # already reported above
        yield


def find_fonts(characters: Set[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Installed fonts that together have ``characters``, few and sans serif first; and the characters that none has."""
    return _search(frozenset(characters), tuple(_installed()))


@functools.lru_cache(maxsize=64)
def _search(
    characters: frozenset[str], installed: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, ...], frozenset[str]]:
    found = {name: characters - _not_in(file, characters) for name, file in installed}
    names: list[str] = []
    while found:
        best = min(found, key=lambda name: (-len(found[name]), "sans" not in name.lower(), name))
        if not found[best]:
            break
        names.append(best)
        characters -= found[best]
        found = {name: has - found[best] for name, has in found.items()}
    return tuple(names), characters


def _installed() -> Iterator[tuple[str, str]]:
    """Name and file of each upright font that Matplotlib knows and can draw."""
    for entry in font_manager.fontManager.ttflist:
        plain = entry.name.lower().replace(" ", "").lstrip(".")
        if entry.style == "normal" and not plain.startswith(PLACEHOLDERS):
            yield entry.name, entry.fname


def _not_in(file: str, characters: Set[str]) -> frozenset[str]:
    try:
        font = FT2Font(file)
    except (OSError, RuntimeError):  # removed since Matplotlib listed it, or damaged
        return frozenset(characters)
    return frozenset(character for character in characters if not font.get_char_index(ord(character)))


def _lacking(text: Text) -> frozenset[str]:
    """The characters of a text that are missing from its font."""
    words = text.get_text()
    if words.isascii() or not text.get_visible():
        return frozenset()
    characters = {character for character in words if not character.isascii() and not character.isspace()}
    return _not_in(font_manager.findfont(text.get_fontproperties()), characters)


def _texts(figure: Figure) -> list[Text]:
    """All text of a figure; asking for tick labels creates them."""
    for axis in figure.findobj(Axis):
        axis.get_ticklabels(which="both")  # pyright: ignore[reportAttributeAccessIssue]
    return figure.findobj(Text)  # pyright: ignore[reportReturnType]

"""The kinds of error a person is meant to read, and what makes text readable."""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """``text`` on one line, fit for a terminal: line breaks, escape sequences, bytes that are no UTF-8 are spelt out.

    File and class names may hold any of them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def did_you_mean(word: str, names: Collection[str], otherwise: str = "") -> str:
    """The way out of a misspelt name: the nearest there is, or else ``otherwise`` (all of them if empty)."""
    nearest = difflib.get_close_matches(word, names, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else otherwise or f"there are {', '.join(names)}"


class UserError(Exception):
    """Something the user can mend: the message is one line, names the culprit and the way out.

    The command line prints it as it is and exits with 1; anything else is a bug and shows its traceback under
    ``--debug``.
    """


class DataWarning(UserWarning):
    """Something about the data that the user may not expect, and that does not stop the work: the message is one line.

    The command line prints each once, on standard error.
    """


class SettingError(UserError):
    """A setting that cannot be: wrong usage, which the command line tells apart by exiting with 2."""


class FigureWarning(UserWarning):
    """A figure is written, but not all of it is as it should be; the message is one line."""


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Around imports of libraries that come with an extra.

    Raises:
        UserError: with the way to install them, or, where they are, with what they fail to load.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{what} needs {error.name}: pip install 'glimpsenet[{extra}]'") from error
    except ImportError as error:
        raise UserError(f"{what} needs what this system lacks: {first_line(error)}") from error

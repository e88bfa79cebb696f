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
    """Something the user can fix: the message is one line, names the culprit and the way out.

    The library knows no command line: the kind of error tells the command line which flag helps (``cli/errors.py``).
    Kinds are also the builtin errors that Python's own functions would raise.

    Example:
        >>> try:
        ...     glimpsenet.load_run("runs/digit")
        ... except glimpsenet.UserError as error:
        ...     print(error)
        no such run folder: runs/digit; did you mean 'runs/digits'?
    """


class MissingError(UserError, FileNotFoundError):
    """A file, a folder, or what it should hold, that does not exist."""


class MissingDataError(MissingError):
    """No data where the settings say."""


class DamagedError(UserError, ValueError):
    """A file whose contents cannot be used."""


class HubError(UserError, ConnectionError):
    """What the Hugging Face Hub refuses, or a Hub that cannot be reached."""


class UnreadableImageError(UserError, OSError):
    """An image file that cannot be read."""


class OutputError(UserError, OSError):
    """A place that cannot be written to."""


class StoppedError(UserError, OSError):
    """Training that stopped where it can be resumed."""


class OccupiedError(UserError, FileExistsError):
    """A folder with a run that is not to be overwritten silently."""


class PretrainedWeightsError(UserError, RuntimeError):
    """Pretrained weights that cannot be had."""


class LoaderError(UserError, RuntimeError):
    """A process that reads images has died."""


class AddressError(UserError, OSError):
    """An address that cannot be listened at."""


class DataWarning(UserWarning):
    """Something about the data that the user may not expect, and that does not stop the work: the message is one line.

    The command line prints each once, on standard error.
    """


class SettingError(UserError):
    """A setting that cannot be: wrong usage, for which the command line exits with 2.

    It is no ``ValueError``: the parser of the command line would catch one, and print it in a box of its own.
    """


class OutsideError(SettingError):
    """A window that leaves the image."""


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

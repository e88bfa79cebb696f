"""How a command ends: done (0), failed with one line that says why (1), wrong usage (2)."""

import contextlib
import os
import sys
from collections.abc import Iterator

from glimpsenet import errors
from glimpsenet.errors import SettingError, UserError, printable

HINTS: dict[type[UserError], str] = {
    errors.AddressError: "--port 0 takes any free port",
    errors.LoaderError: "--workers 0 reads in this process",
    errors.MissingDataError: "--data names the folder",
    errors.OccupiedError: "--resume continues it, --overwrite replaces it, --out names another folder",
    errors.OutputError: "--out names another folder",
    errors.OutsideError: "--allow-outside allows it",
    errors.PretrainedWeightsError: "--backbone-weights FILE, or --no-pretrained",
    errors.StoppedError: "--resume continues",
    errors.UnreadableImageError: "--skip-bad skips them",
}
"""What the command line adds to errors of the library, where the command has the first flag named."""


@contextlib.contextmanager
def refusals_are_wrong_usage() -> Iterator[None]:
    """What a tool refuses with ValueError is wrong usage of its command.

    Raises:
        SettingError: for a ValueError.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise SettingError(str(error)) from error


@contextlib.contextmanager
def told_in_one_line(debug: bool, flags: set[str]) -> Iterator[None]:
    """Whatever ends a command early is one line on standard error; its traceback with ``debug``.

    Args:
        debug: raise instead.
        flags: of the command, once they are known.
    """
    try:
        yield
    except UserError as error:
        if debug:
            raise
        _end(with_hint(error, flags), 2 if isinstance(error, SettingError) else 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough (head).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except KeyboardInterrupt:
        print("glimpsenet: interrupted; --resume continues a training run", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        way = "" if isinstance(error, OSError) else "; --debug shows where, for a report"
        _end(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{way}", 1)


def with_hint(error: UserError, flags: set[str]) -> str:
    """What an error says, and the flag that helps, if the command has it."""
    hint = HINTS.get(type(error), "")
    return f"{error} ({hint})" if hint.partition(" ")[0].rstrip(",") in flags else str(error)


def _end(problem: str, code: int) -> None:
    print(f"glimpsenet: error: {printable(' '.join(problem.split()))}", file=sys.stderr)
    sys.exit(code)

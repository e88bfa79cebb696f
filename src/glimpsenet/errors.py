"""The kinds of error a person is meant to read, and what makes text readable."""


def printable(text: str) -> str:
    """``text`` on one line, fit for a terminal: line breaks, escape sequences, bytes that are no UTF-8 are spelt out.

    File and class names may hold any of them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


class UserError(Exception):
    """Something the user can mend: the message is one line, names the culprit and the way out.

    The command line prints it as it is and exits with 1; anything else is a bug and shows its traceback under
    ``--debug``.
    """


class SettingError(UserError):
    """A setting that cannot be: wrong usage, which the command line tells apart by exiting with 2."""

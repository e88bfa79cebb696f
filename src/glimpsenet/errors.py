"""The one kind of error a person is meant to read."""


class UserError(Exception):
    """Something the user can mend: the message is one line, names the culprit and the way out.

    The command line prints it as it is and exits with 1; anything else is a bug and shows its traceback under
    ``--debug``.
    """


class SettingError(UserError):
    """A setting that cannot be: wrong usage, which the command line tells apart by exiting with 2."""

"""The exceptions that the command line turns into a message instead of a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can mend: a path, a column, an option, a model.

    The message says what is wrong, where, and the next thing to try. It must survive a trip
    between processes, so it carries nothing but its text.
    """


class StoppedError(UserError):
    """A run had to stop. Its committed groups stay, and the same command resumes it."""

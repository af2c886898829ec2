"""Retries of requests to a store."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TypeVar

from pipeline.errors import UserError

Result = TypeVar("Result")


class Retries(Enum):
    """How long a request to a store is retried, once the store's own client has given up."""

    SHORT = "short"
    """For a few seconds: a user waits for an answer, and the address may be wrong."""
    LONG = "long"
    """For half a minute: a run under way outlasts a short outage."""


#: Seconds before each retry.
PAUSES: Mapping[Retries, Sequence[float]] = {
    Retries.SHORT: (0.5, 1.0, 2.0, 4.0),
    Retries.LONG: (1.0, 2.0, 4.0, 8.0, 16.0),
}
#: Errors that a retry does not change.
_LASTING = (UserError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is no such file; some libraries (SMB's) have errors of their own for it."""
    return isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno == errno.ENOENT)


def with_retries(do: Callable[[], Result], retries: Retries) -> Result:
    """The result of a function, which is called again after each pause if it fails.

    Raises:
        Exception: The error of the last call.
    """
    for pause in PAUSES[retries]:
        try:
            return do()
        except _LASTING:
            raise
        except Exception as error:
            # Each file system raises errors of its own libraries.
            if is_missing(error):
                raise
            time.sleep(pause)
    return do()

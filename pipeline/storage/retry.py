"""Retries of what a network failed to do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from pipeline.errors import UserError

Result = TypeVar("Result")

#: Seconds before each retry, once a store's own client has given up. Reads are retried for less long than writes: a
#: reader waits for an answer, and its address may be wrong.
READ_PAUSES: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
WRITE_PAUSES: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Errors that a retry does not change.
_LASTING = (UserError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
#: Whether this thread reads for a folder's writer, with the retries of a write.
_AS_WRITER: ContextVar[bool] = ContextVar("as_writer", default=False)


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is no such file; some libraries (SMB's) have errors of their own for it."""
    return isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno == errno.ENOENT)


def read_pauses() -> Sequence[float]:
    """The pauses between the retries of a read."""
    return WRITE_PAUSES if _AS_WRITER.get() else READ_PAUSES


@contextmanager
def of_a_writer() -> Iterator[None]:
    """Retries reads for as long as writes."""
    before = _AS_WRITER.set(True)
    try:
        yield
    finally:
        _AS_WRITER.reset(before)


def with_retries(do: Callable[[], Result], pauses: Sequence[float]) -> Result:
    """The result of a function, which is called again after each pause if it fails.

    Raises:
        Exception: The error of the last call.
    """
    for pause in pauses:
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

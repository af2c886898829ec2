"""Doing again what a network failed to do."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from pipeline.errors import UserError

Result = TypeVar("Result")

#: Seconds before each new try, once a store's own client has given up; who reads may still be told of a mistake.
READ_PAUSES: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
WRITE_PAUSES: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
#: What is so, and will be the next time too.
_LASTING = (UserError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
#: Whether what is read now is read by a folder's writer; each thread has its own.
_AS_WRITER: ContextVar[bool] = ContextVar("as_writer", default=False)


def is_missing(error: Exception) -> bool:
    """Whether it says that there is no such file; some libraries (SMB's) have errors of their own for it."""
    return isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno == errno.ENOENT)


def read_pauses() -> Sequence[float]:
    """The pauses of what is read now."""
    return WRITE_PAUSES if _AS_WRITER.get() else READ_PAUSES


@contextmanager
def of_a_writer() -> Iterator[None]:
    """Waits for what is read as long as for what is written."""
    before = _AS_WRITER.set(True)
    try:
        yield
    finally:
        _AS_WRITER.reset(before)


def patiently(do: Callable[[], Result], pauses: Sequence[float]) -> Result:
    """Do something, and do it again after each pause if it failed.

    Raises:
        Exception: What it raised at last.
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

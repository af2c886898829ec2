"""Doing again what a network failed to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.errors import UserError

Result = TypeVar("Result")

#: Seconds before each new try, once a store's own client has given up; who reads may still be told of a mistake.
READ_PAUSES: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
WRITE_PAUSES: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)
#: What is so, and will be the next time too.
_LASTING = (UserError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


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
        except Exception:
            # Each file system raises errors of its own libraries.
            time.sleep(pause)
    return do()

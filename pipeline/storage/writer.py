"""What the one writer of a folder asks of the place where it lies."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

from pipeline.storage.paths import AnyPath

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageError(OSError):
    """The store does not take what is written, or does not give it back. What was written before stays.

    Args:
        message: What is wrong, and where.
        remedy: What to do before the same command can go on; nothing where it may as things are.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @classmethod
    def at(cls, target: AnyPath, what: str, error: Exception) -> StorageError:
        """That something ``cannot be`` done to a file, and why."""
        number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
        reason = reason or str(error) or type(error).__name__
        return cls(f"{target} cannot be {what}: {reason}", remedy="make room" if number in _FULL else "")


class StorageBusyError(Exception):
    """Another process writes the folder."""


class Writer(Protocol):
    """A folder for its one writer: a file in it is there whole, under its name, or not at all."""

    @property
    def own_names(self) -> tuple[str, ...]:
        """How the names begin of what the store itself leaves in the folder."""
        ...

    def acquire(self, announce: Callable[[str], None]) -> None:
        """Become the folder's one writer, and drop what a crash left half written.

        Args:
            announce: Told, in a line, why it takes long.

        Raises:
            StorageBusyError: There is one already.
            OSError: The place cannot be written.
        """
        ...

    def release(self) -> None:
        """Let others write; does nothing for who is not the writer."""
        ...

    def write(self, name: str, content: bytes, check: Callable[[bytes], None] | None = None) -> None:
        """Write a file, or write it over.

        Args:
            name: Which, from the folder on, such as ``paths/a.parquet``.
            content: All of it.
            check: Given what the store reads back before the file counts; raises ``OSError`` where it is another.

        Raises:
            StorageError: The store does not take it, or another process has become the writer.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StorageError: It stays.
        """
        ...

    def tidy(self) -> None:
        """Remove what writing needed and reading does not. What stays all the same is no harm, and no error."""
        ...

"""The protocol of a folder's one writer, and the errors of writing."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

from pipeline.storage.paths import AnyPath

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageError(OSError):
    """The store does not take a file, or does not give it back. Files that were written before stay.

    Args:
        message: What is wrong, and with which file.
        remedy: What to do before the same command can go on; empty if nothing needs to be done.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @classmethod
    def at(cls, target: AnyPath, what: str, error: Exception) -> StorageError:
        """The error that a file ``cannot be`` written or removed, with its cause."""
        number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
        reason = reason or str(error) or type(error).__name__
        return cls(f"{target} cannot be {what}: {reason}", remedy="make room" if number in _FULL else "")


class StorageBusyError(Exception):
    """Another process writes the folder."""


class Writer(Protocol):
    """A folder for its one writer: a file in it is there whole, under its name, or not at all."""

    @property
    def own_names(self) -> tuple[str, ...]:
        """The prefixes of the names of files that the writer itself leaves in the folder."""
        ...

    def acquire(self, announce: Callable[[str], None]) -> None:
        """Become the folder's one writer, and remove files that a crash left half written.

        Args:
            announce: Called with a line that says why it takes long.

        Raises:
            StorageBusyError: Another process is the writer.
            OSError: The folder cannot be written.
        """
        ...

    def release(self) -> None:
        """Let others write; does nothing if this process is not the writer."""
        ...

    def write(self, name: str, content: bytes, check: Callable[[bytes], None] | None = None) -> None:
        """Write a file, or write it over.

        Args:
            name: The file's path in the folder, such as ``paths/a.parquet``.
            content: The file's bytes.
            check: Called with the bytes that the store reads back, before the file counts; raises ``OSError`` if they
                are others.

        Raises:
            StorageError: The store does not take it, or another process has become the writer.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StorageError: The file stays.
        """
        ...

    def tidy(self) -> None:
        """Remove files that only writing needed. A file that stays is no error."""
        ...

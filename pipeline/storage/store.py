"""What the one writer of a folder asks of the place where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class StoreError(OSError):
    """The store does not take what is written. What was written before stays."""


class StoreBusyError(Exception):
    """Another process writes the folder."""


class Store(Protocol):
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
            StoreBusyError: There is one already.
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
            StoreError: The store does not take it, or another process has become the writer.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file that is there.

        Raises:
            OSError: It stays.
        """
        ...

    def tidy(self) -> None:
        """Remove what writing needed and reading does not."""
        ...

"""A folder of a file system that renames: a file is written under another name, synced, read back and moved."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.storage.writer import StorageBusyError, StorageError

_LOCK_NAME, _STAGING_NAME = ".lock", "_staging"


class LocalWriter:
    """Writes a folder of this machine, or of a disk that machines share."""

    own_names = (_LOCK_NAME, _STAGING_NAME)

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = self._root / _STAGING_NAME
        self._lock = FileLock(self._root / _LOCK_NAME, timeout=0)

    def acquire(self, announce: Callable[[str], None]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise StorageBusyError from None
        self._staging.mkdir(exist_ok=True)
        self._drop_leftovers()

    def _drop_leftovers(self) -> None:
        """Remove what a crash left half written."""
        for leftover in self._staging.iterdir():
            leftover.unlink()

    def release(self) -> None:
        self._lock.release()

    def write(self, name: str, content: bytes, check: Callable[[bytes], None] | None = None) -> None:
        target = self._root / name
        staged = self._staging / f"{target.name}-{uuid.uuid4().hex}"
        try:
            self._staging.mkdir(exist_ok=True)
            target.parent.mkdir(exist_ok=True)
            with staged.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            if check is not None:
                self._check_staged(staged, check)
            self._move(staged, target)
        except OSError as error:
            raise StorageError.at(target, "written", error) from error

    @staticmethod
    def _check_staged(staged: Path, check: Callable[[bytes], None]) -> None:
        """Read back what was written; the check raises ``OSError`` if it is something else."""
        check(staged.read_bytes())

    @staticmethod
    def _move(staged: Path, target: Path) -> None:
        staged.replace(target)

    def remove(self, name: str) -> None:
        target = self._root / name
        try:
            target.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError.at(target, "removed", error) from error

    def tidy(self) -> None:
        with suppress(OSError):
            self._staging.rmdir()

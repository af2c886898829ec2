"""A folder that fsspec reaches: object stores, which put whole objects, and remote disks, which rename.

An object store cannot rename: it copies and removes, and a crash between the two leaves both. But an object that is put
is there whole or not at all, so it is put under its own name and read back; readers follow the manifest, whose record
is put last. Remote disks show a file while it is written, so it is written under another name and renamed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress

from upath import UPath

from pipeline.storage.lease import LEASE_NAME, Lease
from pipeline.storage.paths import is_object_store
from pipeline.storage.read import entries, reaching
from pipeline.storage.retry import Retries, is_missing, with_retries
from pipeline.storage.writer import StorageError

_STAGING_NAME = "_staging"


class RemoteWriter:
    """Writes a folder behind a URL."""

    own_names = (LEASE_NAME, _STAGING_NAME)

    def __init__(self, root: UPath) -> None:
        self._root = root
        self._puts_whole = is_object_store(root)
        self._lease = Lease(root / LEASE_NAME)

    def acquire(self, announce: Callable[[str], None]) -> None:
        if self._puts_whole:
            self._lease.acquire(announce)
            return
        self._make(self._root)
        self._lease.acquire(announce)
        self._make(self._root / _STAGING_NAME)  # an earlier holder of the lease may have tidied up
        for leftover in entries(self._root / _STAGING_NAME):
            self.remove(f"{_STAGING_NAME}/{leftover.name}")

    @staticmethod
    def _make(folder: UPath) -> None:
        with reaching(folder):
            with_retries(lambda: folder.fs.makedirs(folder.path, exist_ok=True), Retries.SHORT)

    def release(self) -> None:
        self._lease.release()

    def write(self, name: str, content: bytes, check: Callable[[bytes], None] | None = None) -> None:
        if self._lease.lost:
            raise StorageError(
                f"another search has taken over {self._root}; this one was out of reach for too long",
                remedy="wait for the other's end",
            )
        target = self._root / name
        try:
            if self._puts_whole:
                self._put(target, content, check)
            else:
                self._put_and_move(target, content, check)
        except Exception as error:
            # Each file system raises errors of its own libraries.
            raise StorageError.at(target, "written", error) from error

    def _put(self, target: UPath, content: bytes, check: Callable[[bytes], None] | None) -> None:
        with_retries(lambda: target.fs.pipe_file(target.path, content), Retries.LONG)
        if check is not None:
            check(with_retries(lambda: _stored(target), Retries.LONG))

    def _put_and_move(self, target: UPath, content: bytes, check: Callable[[bytes], None] | None) -> None:
        staged = self._root / _STAGING_NAME / f"{target.name}-{uuid.uuid4().hex}"
        self._put(staged, content, check)
        with_retries(lambda: self._move(staged, target, content), Retries.LONG)

    @staticmethod
    def _move(staged: UPath, target: UPath, content: bytes) -> None:
        """Move a file to its name, and check what is there then: a response may be lost, or say nothing."""
        disk = target.fs
        disk.makedirs(target.parent.path, exist_ok=True)
        with suppress(Exception):
            disk.mv(staged.path, target.path)
        if _holds(target, content):
            return
        # Some disks do not move onto a file that is there: SMB refuses, WebHDFS does nothing. Only then is it removed
        # first, since a crash before the move loses it. A run needs one file of those that are written over, run.json:
        # once before anything is committed, with the same settings, and again where a run is extended.
        _remove(target)
        disk.mv(staged.path, target.path)
        if not _holds(target, content):
            raise OSError("it does not hold what was moved there")

    def remove(self, name: str) -> None:
        target = self._root / name
        try:
            with_retries(lambda: _remove(target), Retries.LONG)
        except Exception as error:
            raise StorageError.at(target, "removed", error) from error

    def tidy(self) -> None:
        if not self._puts_whole:
            with suppress(Exception):
                self._root.fs.rmdir((self._root / _STAGING_NAME).path)


def _stored(target: UPath) -> bytes:
    target.fs.invalidate_cache()  # some take a file's length from the listing
    stored: bytes = target.fs.cat_file(target.path)
    return stored


def _holds(target: UPath, content: bytes) -> bool:
    try:
        return _stored(target) == content
    except Exception as error:
        if is_missing(error):
            return False
        raise


def _remove(target: UPath) -> None:
    try:
        target.fs.rm_file(target.path)
    except Exception as error:
        if not is_missing(error):
            raise

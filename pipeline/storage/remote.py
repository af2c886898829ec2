"""A folder that fsspec reaches: object stores, which put whole objects, and far disks, which rename.

An object store cannot rename: what it calls so is a copy and a removal, and a crash between them leaves both. But an
object that is put is there whole or not at all, so it is put under its own name and read back; who reads follows the
manifest, whose record is put last. Far disks show a file while it is written, so it is written beside and renamed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from upath import UPath

from pipeline.storage import patience
from pipeline.storage.lease import LEASE_NAME, Lease
from pipeline.storage.location import is_object_store
from pipeline.storage.patience import patiently
from pipeline.storage.reading import content as content_of
from pipeline.storage.reading import entries
from pipeline.storage.store import StoreError
from pipeline.storage.uploading import remove

_STAGING_NAME = "_staging"


class RemoteStore:
    """A folder behind a URL."""

    own_names = (LEASE_NAME, _STAGING_NAME)

    def __init__(self, root: UPath) -> None:
        self._root = root
        self._puts_whole = is_object_store(root)
        self._lease = Lease(root / LEASE_NAME)

    def acquire(self, announce: Callable[[str], None]) -> None:
        if not self._puts_whole:
            self._root.fs.makedirs((self._root / _STAGING_NAME).path, exist_ok=True)
        self._lease.acquire(announce)
        if not self._puts_whole:
            for leftover in entries(self._root / _STAGING_NAME):
                self.remove(f"{_STAGING_NAME}/{leftover.name}")

    def release(self) -> None:
        self._lease.release()

    def write(self, name: str, content: bytes, check: Callable[[bytes], None] | None = None) -> None:
        if self._lease.lost:
            raise StoreError(f"another search has taken over {self._root}; this one was out of reach for too long")
        target = self._root / name
        try:
            if self._puts_whole:
                self._put(target, content, check)
            else:
                self._put_and_move(target, content, check)
        except Exception as error:
            # Each file system raises errors of its own libraries.
            reason = error.strerror if isinstance(error, OSError) else None
            raise StoreError(f"{target} cannot be written: {reason or error}") from error

    def _put(self, target: UPath, content: bytes, check: Callable[[bytes], None] | None) -> None:
        patiently(lambda: target.fs.pipe_file(target.path, content), patience.WRITE_PAUSES)
        if check is not None:
            check(content_of(target))

    def _put_and_move(self, target: UPath, content: bytes, check: Callable[[bytes], None] | None) -> None:
        staged = self._root / _STAGING_NAME / f"{target.name}-{uuid.uuid4().hex}"
        self._put(staged, content, check)

        def move() -> None:
            target.fs.makedirs(target.parent.path, exist_ok=True)
            target.fs.mv(staged.path, target.path)

        patiently(move, patience.WRITE_PAUSES)

    def remove(self, name: str) -> None:
        target = self._root / name
        patiently(lambda: remove(target), patience.WRITE_PAUSES)

    def tidy(self) -> None:
        if not self._puts_whole:
            self._root.fs.rmdir((self._root / _STAGING_NAME).path)

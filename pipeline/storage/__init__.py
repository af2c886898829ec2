"""Files and folders on this machine, or behind any URL that fsspec knows.

``paths`` resolves what a user names, ``read`` reads, and a ``Writer`` is a folder's one writer: ``local_writer`` writes
under another name and renames, ``remote_writer`` puts whole objects where a store cannot rename, and has a ``lease`` as
its lock. ``write`` is for single files and folders that need no writer of their own.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.storage.local_writer import LocalWriter
from pipeline.storage.paths import AnyPath, PathOrUrl, absolute_path, locate, where_it_is, without_secrets
from pipeline.storage.read import (
    UnreachableError,
    content,
    contents,
    entries,
    is_folder,
    is_there,
    local_copy,
    reaching,
)
from pipeline.storage.remote_writer import RemoteWriter
from pipeline.storage.retry import Retries
from pipeline.storage.write import remove, uploaded, write_whole
from pipeline.storage.writer import StorageBusyError, StorageError, Writer

__all__ = [
    "AnyPath",
    "LocalWriter",
    "PathOrUrl",
    "RemoteWriter",
    "Retries",
    "StorageBusyError",
    "StorageError",
    "UnreachableError",
    "Writer",
    "absolute_path",
    "content",
    "contents",
    "entries",
    "is_folder",
    "is_there",
    "local_copy",
    "locate",
    "reaching",
    "remove",
    "uploaded",
    "where_it_is",
    "without_secrets",
    "write_whole",
    "writer_of",
]


def writer_of(path: AnyPath) -> Writer:
    """The writer of a folder, by the kind of its path."""
    return LocalWriter(path) if isinstance(path, Path) else RemoteWriter(path)

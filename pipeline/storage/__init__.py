"""Where runs and questions lie: a folder of this machine, or any URL that fsspec knows.

``paths`` goes from a user's words to a path, ``read`` reads what may be far away, and a ``Writer`` is a folder's
one writer: ``local_writer`` writes under another name and renames, ``remote_writer`` puts whole objects where a
store cannot rename (``lease`` is its lock). ``write`` is for what is written in one go.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.storage.local_writer import LocalWriter
from pipeline.storage.paths import AnyPath, PathOrUrl, locate, without_secrets
from pipeline.storage.read import (
    UnreachableError,
    as_writer,
    content,
    contents,
    entries,
    is_folder,
    is_there,
    local_copy,
    reaching,
)
from pipeline.storage.remote_writer import RemoteWriter
from pipeline.storage.write import remove, uploaded, write_whole
from pipeline.storage.writer import StorageBusyError, StorageError, Writer

__all__ = [
    "AnyPath",
    "LocalWriter",
    "PathOrUrl",
    "RemoteWriter",
    "StorageBusyError",
    "StorageError",
    "UnreachableError",
    "Writer",
    "as_writer",
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
    "without_secrets",
    "write_whole",
    "writer_of",
]


def writer_of(place: AnyPath) -> Writer:
    """The writer of a folder, as its place allows."""
    return LocalWriter(place) if isinstance(place, Path) else RemoteWriter(place)

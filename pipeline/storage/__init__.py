"""Where runs and questions lie: a folder of this machine, or any URL that fsspec knows.

``paths`` goes from a user's words to a path, ``read`` reads what may be far away, and a ``Store`` is a folder's
one writer: ``local_writer`` writes under another name and renames, ``remote_writer`` puts whole objects where a
store cannot rename (``lease`` is its lock). ``write`` is for what is written in one go.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.storage.local_writer import LocalStore
from pipeline.storage.paths import AnyPath, Place, locate, without_secrets
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
from pipeline.storage.remote_writer import RemoteStore
from pipeline.storage.write import remove, uploaded, write_whole
from pipeline.storage.writer import Store, StoreBusyError, StoreError

__all__ = [
    "AnyPath",
    "LocalStore",
    "Place",
    "RemoteStore",
    "Store",
    "StoreBusyError",
    "StoreError",
    "UnreachableError",
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
    "store_of",
    "uploaded",
    "without_secrets",
    "write_whole",
]


def store_of(place: AnyPath) -> Store:
    """The writer of a folder, as its place allows."""
    return LocalStore(place) if isinstance(place, Path) else RemoteStore(place)

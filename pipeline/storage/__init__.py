"""Where runs and questions lie: a folder of this machine, or any URL that fsspec knows.

``location`` goes from a user's words to a path, ``reading`` reads what may be far away, and a ``Store`` is a folder's
one writer: ``local`` writes under another name and renames, ``remote`` puts whole objects where a store cannot rename
(``lease`` is its lock). ``uploading`` is for what is written in one go.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.storage.local import LocalStore
from pipeline.storage.location import AnyPath, Place, locate, without_secrets
from pipeline.storage.reading import (
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
from pipeline.storage.remote import RemoteStore
from pipeline.storage.store import Store, StoreBusyError, StoreError
from pipeline.storage.uploading import remove, uploaded, write_whole

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

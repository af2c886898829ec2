"""Reading local and remote files: many objects at once, and one error for those of every library.

Requests to a remote store are retried for as long as the caller says; see ``Retries``.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UserError
from pipeline.storage.paths import AnyPath, without_secrets
from pipeline.storage.retry import Retries, is_missing, with_retries

Result = TypeVar("Result")

#: Objects that are fetched at once, and those that are held in memory for it.
_FETCHERS, _AHEAD = 32, 256


class UnreachableError(OSError, UserError):
    """A remote store that cannot be reached: no network, no such bucket, no permission."""


def content(file: AnyPath, *, retries: Retries = Retries.SHORT) -> bytes:
    """A file's bytes.

    Raises:
        OSError: The file cannot be read; ``FileNotFoundError`` if there is none.
    """
    if isinstance(file, Path):
        return file.read_bytes()
    fetched: bytes = _ask(file, lambda: file.fs.cat_file(file.path), retries)
    return fetched


def contents(files: Sequence[AnyPath]) -> Iterator[bytes]:
    """The bytes of files, in their order; objects of a remote store are fetched many at once.

    Raises:
        OSError: A file cannot be read.
    """
    if not files or isinstance(files[0], Path):
        yield from map(content, files)
        return
    with ThreadPoolExecutor(_FETCHERS) as fetchers:
        for start in range(0, len(files), _AHEAD):
            yield from fetchers.map(content, files[start : start + _AHEAD])


def entries(folder: AnyPath, suffix: str = "", *, retries: Retries = Retries.SHORT) -> list[AnyPath]:
    """The entries of a folder whose names end with a suffix, by name; empty if there is no such folder.

    Raises:
        OSError: The folder cannot be listed.
    """
    try:
        found = _ask(folder, lambda: _listed(folder), retries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((entry for entry in found if entry.name.endswith(suffix)), key=lambda entry: entry.name)


def _listed(folder: AnyPath) -> list[AnyPath]:
    if isinstance(folder, Path):
        return list(folder.iterdir())
    # Not by ``iterdir``: it takes a store that does not answer for one that has no such folder. A folder that was made
    # in a store's console is an object of its own name, and is no entry of itself.
    own = folder.path.strip("/")
    names = {name.strip("/") for name in folder.fs.ls(folder.path, detail=False)} - {own, ""}
    return [folder / name.rpartition("/")[2] for name in names]


def is_there(path: AnyPath, *, retries: Retries = Retries.SHORT) -> bool:
    """Whether there is a file or a folder.

    Raises:
        OSError: The store does not say.
    """
    return _kind(path, retries) is not None


def is_folder(path: AnyPath, *, retries: Retries = Retries.SHORT) -> bool:
    """Whether there is a folder.

    Raises:
        OSError: The store does not say.
    """
    return _kind(path, retries) == "directory"


def _kind(path: AnyPath, retries: Retries) -> str | None:
    """``file`` or ``directory``; None if there is neither."""
    if isinstance(path, Path):
        return ("directory" if path.is_dir() else "file") if path.exists() else None
    try:
        # Most file systems' ``exists`` takes a store that does not answer for one that has nothing.
        kind: str = _ask(path, lambda: path.fs.info(path.path)["type"], retries)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return kind


@contextmanager
def local_copy(path: AnyPath, *, retries: Retries = Retries.SHORT) -> Iterator[Path]:
    """A file on this machine, for libraries that read no other; a remote one is copied, and kept within the context.

    Raises:
        OSError: The file cannot be read; ``FileNotFoundError`` if there is none.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="drllm-") as scratch:
        copy = Path(scratch) / path.name
        _ask(path, lambda: path.fs.get_file(path.path, str(copy)), retries)
        yield copy


def _ask(path: AnyPath, do: Callable[[], Result], retries: Retries) -> Result:
    """The result of a read, with retries for a remote store."""
    with reaching(path):
        if isinstance(path, Path):
            return do()

        def do_afresh() -> Result:
            # A cached listing may be out of date: others write too.
            path.fs.invalidate_cache()
            return do()

        return with_retries(do_afresh, retries)


@contextmanager
def reaching(path: AnyPath) -> Iterator[None]:
    """Turns the errors of a remote file system's libraries into one that names the path.

    Raises:
        UnreachableError: The store cannot be reached.
    """
    try:
        yield
    except (UserError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError):
        raise
    except Exception as error:
        if isinstance(path, Path):
            raise
        if is_missing(error):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        raise UnreachableError(f"{without_secrets(path)} cannot be reached: {reason}") from error

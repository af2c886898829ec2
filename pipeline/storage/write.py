"""Writing single files and folders at once: a router, a report, a table of results."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upath import UPath

from pipeline.storage.paths import AnyPath, is_object_store
from pipeline.storage.read import reaching


def write_whole(file: AnyPath, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    with uploaded(file) as target:
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        try:
            staged.write_bytes(content)
            staged.replace(target)
        except OSError:
            staged.unlink(missing_ok=True)
            raise


def remove(file: AnyPath) -> None:
    """Remove a file, if it is there.

    Raises:
        OSError: The file stays.
    """
    with reaching(file), suppress(FileNotFoundError):
        if isinstance(file, Path):
            file.unlink()
        else:
            file.fs.rm_file(file.path)


@contextmanager
def uploaded(path: AnyPath) -> Iterator[Path]:
    """Where to write a file or a folder: its own path here, or a temporary one that is uploaded at the end.

    After an exception nothing is uploaded.

    Args:
        path: The path of the file or folder.

    Raises:
        OSError: A file cannot be uploaded.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="drllm-") as scratch:
        written = Path(scratch) / path.name
        yield written
        if written.is_file():
            _upload(written, path)
        for file in sorted(found for found in written.rglob("*") if found.is_file()):
            _upload(file, path.joinpath(*file.relative_to(written).parts))


def _upload(file: Path, target: UPath) -> None:
    with reaching(target):
        if not is_object_store(target):
            target.fs.makedirs(target.parent.path, exist_ok=True)
        target.fs.put_file(str(file), target.path)

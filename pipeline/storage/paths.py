"""Paths of this machine, and URLs of any file system that fsspec knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeAlias

import fsspec
from fsspec.implementations.local import LocalFileSystem
from upath import UPath

from pipeline.errors import UserError

#: A path on this machine, or one behind a URL; both have the methods of ``pathlib``.
AnyPath: TypeAlias = Path | UPath
#: What a user gives for a path.
PathOrUrl: TypeAlias = str | AnyPath


#: File systems in which an object is there whole or not at all, and nothing can be renamed.
_OBJECT_STORES = frozenset(
    ["s3", "s3a", "r2", "oss", "oci", "tos", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"]
)
#: Each scheme in a URL, which may be a chain of them (``simplecache::https://…``), and the login behind it.
_LOGIN = re.compile(r"([\w+.-]+)://(?=([^/?#]*)@)")


def locate(path: PathOrUrl) -> AnyPath:
    """The path that a user names.

    Args:
        path: A path, or a URL such as ``s3://bucket/folder``. Credentials come from the environment or from fsspec's
            configuration, as each file system has it.

    Returns:
        A ``pathlib.Path`` for a path on this machine, otherwise fsspec's counterpart.

    Raises:
        UserError: No such file system is known or installed, or the URL holds a password or a token.
    """
    if not isinstance(path, str):
        return path.expanduser() if isinstance(path, Path) else path
    if "://" not in path:
        return Path(path).expanduser()
    for scheme, login in _LOGIN.findall(path):
        # Web servers take a token for a user's name; elsewhere a name alone is none, or is a bucket's.
        if ":" in login or (login and scheme.lower() in ("http", "https")):
            raise UserError(
                f"the {scheme} URL holds a password or a token, and URLs get into logs and process lists: leave it "
                "out, and give it by the environment or by fsspec's configuration"
            )
    protocol = path.partition("://")[0].rpartition("::")[2]
    if protocol in ("file", "local"):
        return Path(LocalFileSystem._strip_protocol(path))
    try:
        fsspec.get_filesystem_class(protocol)
        return UPath(path)
    except (ValueError, ImportError) as error:
        raise UserError(f"{without_secrets(path)}: {error}") from None


def absolute_path(path: str | None) -> str | None:
    """The absolute path of a file or folder on this machine; None for anything else, such as a URL or a hub id."""
    if path is None or "://" in path:
        return None
    found = Path(path).expanduser()
    return str(found.resolve()) if found.exists() else None


def where_it_is(typed: str, absolute: object) -> str:
    """A path as it was typed, or its absolute path, if nothing is at the first from the current folder.

    Args:
        typed: The path, hub id or URL as a user gave it once.
        absolute: Its absolute path then; see ``absolute_path``.
    """
    return absolute if isinstance(absolute, str) and absolute_path(typed) is None else typed


def is_object_store(path: UPath) -> bool:
    """Whether objects there appear whole and cannot be renamed; if not, the store is treated as a remote disk."""
    return path.protocol in _OBJECT_STORES


def without_secrets(path: PathOrUrl) -> str:
    """A path as messages and files name it: without a URL's query, which may be a signature."""
    text = str(path)
    address, mark, _ = text.partition("?")
    return f"{address}?…" if mark and "://" in text else text

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
#: How a user names one.
PathOrUrl: TypeAlias = str | AnyPath


#: File systems in which an object is there whole or not at all, and nothing can be renamed.
_OBJECT_STORES = frozenset(
    ["s3", "s3a", "r2", "oss", "oci", "tos", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory"]
)
#: Every file system in a URL, which may be a chain of them (``simplecache::https://…``), and the login in it.
_LOGIN = re.compile(r"([\w+.-]+)://(?=([^/?#]*)@)")


def locate(place: PathOrUrl) -> AnyPath:
    """The path that a user names.

    Args:
        place: A path, or a URL such as ``s3://bucket/folder``. Credentials come from the environment or from fsspec's
            configuration, as each file system has it.

    Returns:
        A ``pathlib.Path`` for a path on this machine, otherwise fsspec's counterpart.

    Raises:
        UserError: No such file system is known or installed, or the URL holds a password or a token.
    """
    if not isinstance(place, str):
        return place.expanduser() if isinstance(place, Path) else place
    if "://" not in place:
        return Path(place).expanduser()
    for far, login in _LOGIN.findall(place):
        # Web servers take a token for a user's name; elsewhere a name alone is none, or is a bucket's.
        if ":" in login or (login and far.lower() in ("http", "https")):
            raise UserError(
                f"the {far} URL holds a password or a token, and URLs get into logs and process lists: leave it out, "
                "and give it by the environment or by fsspec's configuration"
            )
    protocol = place.partition("://")[0].rpartition("::")[2]
    if protocol in ("file", "local"):
        return Path(LocalFileSystem._strip_protocol(place))
    try:
        fsspec.get_filesystem_class(protocol)
        return UPath(place)
    except (ValueError, ImportError) as error:
        raise UserError(f"{without_secrets(place)}: {error}") from None


def is_object_store(place: UPath) -> bool:
    """Whether objects there appear whole and cannot be renamed; if not, the store is treated as a far disk."""
    return place.protocol in _OBJECT_STORES


def without_secrets(place: PathOrUrl) -> str:
    """A path as messages and files name it: without a URL's query, which may be a signature."""
    text = str(place)
    address, mark, _ = text.partition("?")
    return f"{address}?…" if mark and "://" in text else text

"""What runs: the place, the version and the source of the package, and the versions of the libraries under it.

An actor may import another copy of the package than the process that started it: another release on its node, or a
checkout in the working folder. A run of two copies would be of neither.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import UserError

_PACKAGES = ("pipeline", "router")
_LIBRARIES = ("torch", "transformers", "ray", "pyarrow", "tokenizers", "math-verify")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """The code that a process runs.

    Attributes:
        path: The folder that holds the package.
        version: The package's version.
        source: SHA-256 over the package's files, shortened.
        libraries: Versions of Python and of the libraries that decide results.
    """

    path: str
    version: str
    source: str
    libraries: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The installation as JSON, for ``run.json``."""
        return asdict(self)


@cache
def installation() -> Installation:
    """The code that this process runs."""
    libraries = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            libraries[library] = version(library)
        except PackageNotFoundError:
            continue
    return Installation(path=str(_ROOT), version=__version__, source=_source(), libraries=libraries)


def check_same_source(actor: Installation, driver: Installation) -> None:
    """Refuse an actor that runs other code than the process that started it.

    Raises:
        UserError: Their sources differ.
    """
    if actor.source != driver.source:
        raise UserError(
            f"an actor runs drllm-pipeline {actor.version} from {actor.path} (source {actor.source}), this process "
            f"{driver.version} from {driver.path} (source {driver.source}); install one version on every node"
        )


def check_not_hidden(folders: Iterable[Path]) -> None:
    """Refuse folders in which the package's name stands for something else.

    Ray's workers look for modules in the working folder of the process that started them, before what is installed.

    Args:
        folders: The folders in which the workers look first.

    Raises:
        UserError: A folder holds another ``pipeline`` or ``router``.
    """
    for folder in folders:
        for name in _PACKAGES:
            for file in (folder / f"{name}.py", folder / name / "__init__.py"):
                if file.is_file() and not file.resolve().is_relative_to(_ROOT / name):
                    raise UserError(
                        f"{file} hides the installed package {name!r} from Ray's workers, which look into "
                        f"{folder} first; rename it, or start the command in another folder"
                    )


def search_folders() -> list[Path]:
    """The folders in which Ray's workers look for modules first: the script's, and the working folder."""
    script = Path(sys.argv[0]).resolve().parent if sys.argv and sys.argv[0] else Path.cwd()
    return list(dict.fromkeys([script, Path.cwd()]))


def _source(root: Path = _ROOT) -> str:
    digest = hashlib.sha256()
    for name in _PACKAGES:
        place = root / name
        for file in sorted(place.rglob("*.py")):
            digest.update(f"{name}/{file.relative_to(place).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]

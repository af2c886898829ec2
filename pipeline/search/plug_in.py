"""Objects from outside this package, named ``my_package.my_module:NAME``.

A name travels where an object does not: into a run's settings, and into every process that works on the run, which
imports the module for itself.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pipeline.errors import UserError

Loaded = TypeVar("Loaded")


def is_reference(name: str) -> bool:
    """True for the name of an object from outside, such as ``my_package.my_module:NAME``."""
    return ":" in name


def load_object(reference: str, kind: type[Loaded], *, role: str) -> Loaded:
    """Import the object that a reference names. Modules in the current folder are found too.

    Args:
        reference: ``my_package.my_module:NAME``.
        kind: The object's class.
        role: Role of the object, such as ``task``: the first word of every message.

    Raises:
        UserError: The module cannot be imported, it has no such name, or the object is of another class.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute or "/" in module_name or module_name.endswith(".py"):
        raise UserError(f"{role} {reference!r} is not of the form my_package.my_module:NAME")
    # A command that is installed starts with its own folder on the path, not with the current one. Last, so that
    # no file in the current folder hides an installed package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's own, and so is whatever it raises
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{role} {reference!r} cannot be imported: there is no module {error.name!r}; modules are looked for "
                "in the current folder and on PYTHONPATH"
            ) from None
        raise UserError(f"{role} {reference!r} cannot be imported: {located(error)}") from None
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, vars(module))
        raise UserError(f"{role} {reference!r}: module {module_name!r} has no {attribute!r}{hint}")
    found = getattr(module, attribute)
    if not isinstance(found, kind):
        raise UserError(f"{role} {reference!r} is of class {type(found).__name__}, not {kind.__name__}")
    return found


def located(error: Exception) -> str:
    """An error in a user's code, with the file and the line of that code: ``my_task.py:14: TypeError: …``."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{_short_path(error.filename)}:{error.lineno}: {type(error).__name__}: {error.msg}"
    ours = str(Path(__file__).parents[1])
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith((ours, "<"))
    ]
    # The innermost line of a file that is not installed; where all are, the line that our code came to first.
    own = [frame for frame in frames if not frame.filename.startswith((sys.prefix, sys.base_prefix))]
    installed = [frame for frame in frames if "site-packages" in Path(frame.filename).parts]
    for frame in (*own[-1:], *installed[:1]):
        return f"{_short_path(frame.filename)}:{frame.lineno}: {message}"
    return message


def _short_path(file: str) -> str:
    """A file's path from the current folder, where it lies in there."""
    return str(Path(file).relative_to(Path.cwd())) if Path(file).is_relative_to(Path.cwd()) else file


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean …`` with the most similar known word; empty where none is similar."""
    similar = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {similar[0]}" if similar else ""

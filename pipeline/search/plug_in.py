"""Objects from outside this package, named ``my_package.my_module:NAME``.

A name travels where an object does not: into a run's settings, and into every process that works on the run, which
imports the module for itself.
"""

from __future__ import annotations

import importlib
import sys
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
    if not module_name or not attribute:
        raise UserError(f"{role} {reference!r} is not of the form my_package.my_module:NAME")
    # A command that is installed starts with its own folder on the path, not with the current one. Last, so that
    # no file in the current folder hides an installed package.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # the module is the user's own, and so is whatever it raises
        raise UserError(
            f"{role} {reference!r} cannot be imported: {type(error).__name__}: {error}; modules are looked for in the "
            "current folder and on PYTHONPATH"
        ) from None
    if not isinstance(found, kind):
        raise UserError(f"{role} {reference!r} is of class {type(found).__name__}, not {kind.__name__}")
    return found

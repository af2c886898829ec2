"""Search: from a frozen language model and examples to Parquet shards of layer programs.

The names below are the library's front door. They are imported on first use, so that
code which only handles programs and shards never pays for importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.adaptation.adapt import adapt
    from pipeline.engine import FrozenModel, materialize
    from pipeline.program import LayerProgram
    from pipeline.shards.reader import read_paths

__version__ = "0.1.0"
__all__ = ["FrozenModel", "LayerProgram", "adapt", "materialize", "read_paths"]

_HOMES = {
    "FrozenModel": "pipeline.engine",
    "LayerProgram": "pipeline.program",
    "adapt": "pipeline.adaptation.adapt",
    "materialize": "pipeline.engine",
    "read_paths": "pipeline.shards",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

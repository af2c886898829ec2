"""The files of a run: settings, Parquet shards, their manifest. Reading them needs no Ray and no torch.

The names below are imported on first use, so that code which only needs a run's settings never imports pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.shards.reader import read_manifest, read_paths, read_settings

__all__ = ["read_manifest", "read_paths", "read_settings"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pipeline.shards.reader"), name)

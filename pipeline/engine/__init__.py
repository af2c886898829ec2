"""The engine: runs many (tokens, layer program) pairs on one frozen transformers model."""

from __future__ import annotations

from pipeline.engine.frozen_model import FrozenModel
from pipeline.engine.materialize import materialize

__all__ = ["FrozenModel", "materialize"]

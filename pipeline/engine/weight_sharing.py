"""Copies of modules that share every tensor with the original."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def share_weights(module: nn.Module) -> Any:
    """A copy of a tree of modules whose parameters and buffers are the originals; hooks are its own."""
    clone = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict) and name.endswith("hooks"):
            setattr(clone, name, copy.copy(value))
    clone._parameters = dict(module._parameters)
    clone._buffers = dict(module._buffers)
    clone._modules = {name: None if child is None else share_weights(child) for name, child in module._modules.items()}
    return clone


def replace_config(module: nn.Module, old: Any, new: Any) -> None:
    """Point every module of a tree that reads the configuration ``old`` to ``new``."""
    for part in module.modules():
        if getattr(part, "config", None) is old:
            part.config = new

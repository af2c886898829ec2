"""Copies of modules that share every tensor with the original."""

from __future__ import annotations

from typing import Any

from torch import nn


def share_weights(module: nn.Module) -> Any:
    """A copy of a tree of modules whose parameters and buffers are the originals; hooks are its own."""
    attributes = dict(vars(module))
    for name, value in attributes.items():
        if isinstance(value, dict) and (name.endswith("hooks") or name in ("_parameters", "_buffers")):
            attributes[name] = value.copy()
    children = module._modules.items()
    attributes["_modules"] = {name: None if child is None else share_weights(child) for name, child in children}
    clone = type(module).__new__(type(module))
    # Not by setattr: a module looks at each value for tensors, which takes longer than all of the rest.
    vars(clone).update(attributes)
    return clone


def replace_config(module: nn.Module, old: Any, new: Any) -> None:
    """Point every module of a tree that reads the configuration ``old`` to ``new``."""
    for part in module.modules():
        if getattr(part, "config", None) is old:
            part.config = new

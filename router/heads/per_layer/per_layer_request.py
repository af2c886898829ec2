"""How per-layer routers are sized and fitted. The module imports no framework, so that ``--help`` waits for none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How routers are fitted. The defaults are Dr.LLM's (arXiv 2510.12773, appendix).

    Raises:
        ValueError: A field is out of its range.
    """

    epochs: int = 25
    """Most passes over the training rows."""
    batch_size: int = 16
    """Rows of a step."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    warmup_steps: int = 500
    """Steps until the highest learning rate is reached; at most a tenth of all steps."""
    gamma: float = 2.0
    """Focusing parameter of the focal loss."""
    beta: float = 0.999
    """Base of the class weights, by the effective number of rows."""
    patience: int = 6
    """Epochs without a better macro-F1 after which training ends."""
    seed: int = 0
    """Seed of the weights and of the order of the rows."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("weight_decay", "warmup_steps", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be below 0, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.beta < 1:
            raise ValueError(f"beta must be at least 0 and below 1, got {self.beta}")

    def warmup_of(self, num_steps: int) -> int:
        """Warm-up steps of a training of so many steps."""
        return min(self.warmup_steps, num_steps // 10)


@dataclass(frozen=True, kw_only=True)
class PerLayerRequest:
    """Routers of all layers, and how they are trained.

    Raises:
        ValueError: A field is out of its range.
    """

    name: ClassVar[str] = "per-layer"
    label_choices: ClassVar[tuple[str, ...]] = ("shortest", "consensus", "expected")
    own_options: ClassVar[frozenset[str]] = frozenset({"warmup_steps", "gamma", "beta", "windows", "width"})

    num_windows: int = 8
    """Windows that a prompt is cut into."""
    width: int = 128
    """Hidden units of a router."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How routers are fitted."""

    def __post_init__(self) -> None:
        for name, value in (("windows", self.num_windows), ("width", self.width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")

    @property
    def seed(self) -> int:
        return self.fit.seed

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        named = ("epochs", "batch_size", "weight_decay", "patience", "seed", "warmup_steps", "gamma", "beta")
        return cls(
            num_windows=options["windows"],
            width=options["width"],
            fit=FitConfig(learning_rate=options["lr"], **{name: options[name] for name in named}),
        )

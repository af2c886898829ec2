"""The configuration of per-layer routers. The module imports no framework, so that ``--help`` starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors.fields import check_fields, option


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The fitting of routers. The defaults are Dr.LLM's (arXiv 2510.12773, appendix).

    Raises:
        UserError: A field is out of its range.
    """

    epochs: int = field(default=25, metadata=option(at_least=1))
    """Most passes over the training examples."""
    batch_size: int = field(default=16, metadata=option(at_least=1))
    """Number of examples in a step of the optimizer."""
    learning_rate: float = field(default=1e-3, metadata=option("--lr", above=0))
    """Learning rate of AdamW, at its highest."""
    weight_decay: float = field(default=0.01, metadata=option(at_least=0))
    """Weight decay of AdamW."""
    warmup_steps: int = field(default=500, metadata=option(at_least=0, advanced=True))
    """Steps until the learning rate is at its highest; at most a tenth of all steps."""
    gamma: float = field(default=2.0, metadata=option(at_least=0, advanced=True))
    """Exponent of the focal loss: how little easy decisions count; with 0 all count alike."""
    beta: float = field(default=0.999, metadata=option(at_least=0, below=1, advanced=True))
    """Class weights by effective number: 0 for none; the nearer to 1, the more rare classes count."""
    patience: int = field(default=6, metadata=option(at_least=1))
    """Epochs without a better macro-F1 until training ends."""
    seed: int = 0
    """Seed of the weights, the order and the held-out examples."""

    def __post_init__(self) -> None:
        check_fields(self)

    def warmup_of(self, num_steps: int) -> int:
        """Warm-up steps of a training of ``num_steps`` steps."""
        return min(self.warmup_steps, num_steps // 10)


@dataclass(frozen=True, kw_only=True)
class PerLayerRequest:
    """Routers of all layers, and how they are trained.

    Raises:
        UserError: A field is out of its range.
    """

    name: ClassVar[str] = "per-layer"
    label_choices: ClassVar[tuple[str, ...]] = ("shortest", "consensus", "expected")

    num_windows: int = field(default=8, metadata=option("--windows", at_least=1, advanced=True))
    """Windows that a prompt is cut into."""
    width: int = field(default=128, metadata=option(at_least=1, advanced=True))
    """Number of hidden units of a router."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Training of the routers."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def seed(self) -> int:
        return self.fit.seed

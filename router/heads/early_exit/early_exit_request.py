"""How an early exit is built and fitted. The module imports no framework, so that ``--help`` waits for none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from router.probes.probe_requests import ProbeFitConfig, ProbeKind


@dataclass(frozen=True, kw_only=True)
class EarlyExitRequest:
    """An early exit, and how its probe is trained.

    Raises:
        ValueError: A field is out of its range.
    """

    name: ClassVar[str] = "early-exit"
    label_choices: ClassVar[tuple[str, ...]] = ("shortest", "expected")
    own_options: ClassVar[frozenset[str]] = frozenset({"early", "short", "aggregator"})

    early: int | None = None
    """Layers before the exit; None for a quarter of the depth."""
    short: tuple[float, ...] = (0.9,)
    """For each short class the most layers, as a fraction of the depth."""
    kind: ProbeKind = field(default_factory=ProbeKind)
    """Kind of the probe."""
    fit: ProbeFitConfig = field(default_factory=lambda: ProbeFitConfig(balance=0.0))
    """How the probe is fitted. Its probabilities decide, and balanced classes would distort them."""

    def __post_init__(self) -> None:
        if self.early is not None and self.early < 1:
            raise ValueError(f"early must be at least 1, got {self.early}")
        if not self.short or not all(0 < share < 1 for share in self.short):
            raise ValueError(f"short takes fractions of the depth between 0 and 1, got {list(self.short)}")
        if len(set(self.short)) < len(self.short):
            raise ValueError(f"short has a fraction twice: {list(self.short)}")

    @property
    def seed(self) -> int:
        return self.fit.seed

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        named = ("epochs", "batch_size", "weight_decay", "patience", "seed")
        return cls(
            early=options["early"],
            short=options["short"],
            kind=ProbeKind(aggregator=options["aggregator"]),
            fit=replace(cls().fit, learning_rate=options["lr"], **{name: options[name] for name in named}),
        )

    def exit_of(self, depth: int) -> int:
        """The layers before the exit of a model of some depth.

        Raises:
            ValueError: No layer is left behind the exit, or no short program is longer.
        """
        early = max(1, depth // 4) if self.early is None else self.early
        if early >= depth:
            raise ValueError(f"early must be below the {depth} layers of the model, got {early}")
        shortest = int(min(self.short) * depth + 1e-9)
        if early > shortest:
            raise ValueError(
                f"early leaves no room for short programs: {early} layers run always, and --short "
                f"{min(self.short):g} allows {shortest}"
            )
        return early

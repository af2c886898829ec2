"""The configuration of an early-exit head. The module imports no framework, so that ``--help`` starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.program import whole_layers
from router.probes.probe_requests import ProbeFitConfig, ProbeKind


@dataclass(frozen=True, kw_only=True)
class EarlyExitRequest:
    """A probe behind the first layers that chooses the program, and how it is trained.

    Raises:
        UserError: A field is out of its range.
    """

    name: ClassVar[str] = "early-exit"
    label_choices: ClassVar[tuple[str, ...]] = ("shortest", "expected")

    early: int | None = field(default=None, metadata=option(at_least=1, unset="a quarter of them"))
    """Of --head early-exit: layers that always run."""
    short: tuple[float, ...] = (0.9,)
    """Of --head early-exit: most layers of the short program, as a fraction of the depth; several by commas."""
    kind: ProbeKind = field(default_factory=ProbeKind)
    """The architecture of the probe."""
    fit: ProbeFitConfig = field(default_factory=lambda: ProbeFitConfig(balance=0.0))
    """Training of the probe. Its probabilities decide, and weighted classes would bias them."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.short or not all(0 < share < 1 for share in self.short):
            raise UserError(f"--short takes fractions of the depth between 0 and 1, got {list(self.short)}")
        if len(set(self.short)) < len(self.short):
            raise UserError(f"--short has a fraction twice: {list(self.short)}")

    @property
    def seed(self) -> int:
        return self.fit.seed

    def exit_of(self, depth: int) -> int:
        """The layers before the exit of a model of some depth.

        Raises:
            UserError: No layer is left behind the exit, or ``--short`` allows fewer layers than always run.
        """
        early = max(1, depth // 4) if self.early is None else self.early
        if early >= depth:
            raise UserError(f"--early must be below the {depth} layers of the model, got {early}")
        shortest = whole_layers(min(self.short), depth)
        if early > shortest:
            raise UserError(
                f"--early leaves no room for short programs: {early} layers run always, and --short "
                f"{min(self.short):g} allows {shortest}"
            )
        return early

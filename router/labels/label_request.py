"""How labels are chosen: what every kind of router is asked for before it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.storage import AnyPath

#: How an example's label is chosen. ``shortest`` and ``consensus`` choose among its own right programs (see
#: ``router.labels.from_runs``); ``expected`` among programs that are run on all examples (see ``router.menu``).
CHOICES = ("shortest", "consensus", "expected")


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """Which runs the labels come from, and how each example's label is chosen.

    Raises:
        UserError: A field is out of its range.
    """

    data: tuple[AnyPath, ...]
    """Run folders, searched with one model."""
    labels: str = "expected"
    """How an example's label is chosen; one of ``CHOICES``."""
    layer_price: float = 0.01
    """Price of a layer, in right answers an example (0.01 is one percentage point): the higher, the shorter the labels.
    ``consensus`` has a price of its own."""
    consensus_price: float = 0.01
    """Price of a layer in nats where the labels are a consensus."""
    held_out: float = 0.1
    """Fraction of the examples that is held out for early stopping."""

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("--data needs at least one run folder")
        if self.labels not in CHOICES:
            raise UserError(f"labels {self.labels!r} are unknown; choose one of: {', '.join(CHOICES)}")
        for option, price in (("--layer-price", self.layer_price), ("--consensus-price", self.consensus_price)):
            if not 0 <= price < math.inf:
                raise UserError(f"{option} must be a number and not below 0, got {price:g}")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out must be between 0 and 1, got {self.held_out:g}")

    @property
    def price(self) -> float:
        """The price that applies to these labels, in its unit."""
        return self.consensus_price if self.labels == "consensus" else self.layer_price

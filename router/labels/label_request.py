"""The choice of labels, a request that the trainings of all kinds of routers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath

LabelChoice = Literal["expected", "consensus", "shortest"]
#: How an example's label is chosen. ``shortest`` and ``consensus`` choose among its own right programs (see
#: ``router.labels.from_runs``); ``expected`` among programs that are run on all examples (see ``router.menu``).
CHOICES: tuple[LabelChoice, ...] = get_args(LabelChoice)


@dataclass(frozen=True, kw_only=True)
class LabelRequest:
    """The runs that the labels come from, and the choice of each example's label.

    Raises:
        UserError: A field is out of its range.
    """

    data: tuple[AnyPath, ...] = ()
    """Run folder; may be repeated."""
    questions: tuple[str, ...] = field(default=(), metadata=option(unset="where the searches found them"))
    """File, folder or hub data set of the examples, if they lie elsewhere now; one for each --data, in its order."""
    labels: LabelChoice = "expected"
    """An example's label. expected: of a candidate set of programs, which are run on all examples, the one with the
    highest predicted probability of being right, plus the price of the layers that it saves. consensus: of its own
    right programs the one most like other examples'. shortest: the shortest of them, as in the paper. For --head
    early-exit, expected or shortest."""
    layer_price: float = field(default=0.01, metadata=option(at_least=0))
    """Price of a layer, in right answers per example (0.01 is one percentage point): the higher, the shorter the
    labels."""
    consensus_price: float = field(default=0.01, metadata=option(at_least=0, advanced=True))
    """Price of a layer in nats, for --labels consensus."""
    held_out: float = field(default=0.1, metadata=option(above=0, below=1))
    """Share of the examples that decide no label: early stopping is decided on them, and the router judged."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.data:
            raise UserError("give at least one run folder with --data, or a menu with --menu")
        if self.questions and len(self.questions) != len(self.data):
            raise UserError(f"--questions must be given once for each --data: {len(self.data)} times, or not at all")

    @property
    def sources(self) -> list[tuple[AnyPath, str | None]]:
        """Each run folder with the place of its examples; None for where the search found them."""
        return list(zip(self.data, self.questions or [None] * len(self.data), strict=True))

    @property
    def price(self) -> float:
        """The price that applies to these labels, in its unit."""
        return self.consensus_price if self.labels == "consensus" else self.layer_price

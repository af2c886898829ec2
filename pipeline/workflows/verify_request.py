"""The request of a replay. The module imports no framework, so that ``verify --help`` waits for none."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.distributed.cluster import Resources
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """The request of ``drllm-pipeline verify``.

    Raises:
        UserError: A field is out of its range.
    """

    run: AnyPath
    """Run folder."""
    fraction: float = field(default=1.0, metadata=option(above=0, at_most=1))
    """Share of the rows that are replayed, drawn by their content."""
    tolerance: float = field(default=0.0, metadata=option(at_least=0, at_most=1))
    """Share of the replayed rows that may differ."""
    base: str | None = None
    """Hub id, folder or .gguf file of the searched model, if it lies elsewhere now."""
    questions: str | None = field(default=None, metadata=option(unset="where the search found them"))
    """File, folder or hub data set of the searched examples, if they lie elsewhere now."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors."""

    def __post_init__(self) -> None:
        check_fields(self)

    def draws(self, example_id: str, program: Sequence[int]) -> bool:
        """Whether a row is among those that are replayed; every call gives the same answer."""
        digest = hashlib.sha256(f"verify {example_id} {list(map(int, program))}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2**64 < self.fraction

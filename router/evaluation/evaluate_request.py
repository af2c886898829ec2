"""What an evaluation of a router is asked for. The module imports no framework, so that ``--help`` waits for none."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.storage import AnyPath


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What ``drllm-pipeline evaluate`` was asked for.

    Raises:
        UserError: A field is out of its range.
    """

    router: AnyPath
    """Router folder, or hub id."""
    against: tuple[AnyPath, ...] = ()
    """Other routers of the same base, on the same questions."""
    task: str
    """Name of the task."""
    data: str | None = None
    """Where its questions come from."""
    split: str = "test"
    """Split of a hub data set or of a made task."""
    limit: int | None = None
    """At most this many questions."""
    seed: int = 0
    """Of made questions, random programs and the search."""
    max_new_tokens: int | None = None
    """Most tokens of a generated answer; None for the task's own default."""
    budget: float | None = None
    """Most layers of any sequence, as a fraction of the depth; None for no bound."""
    average: float | None = None
    """Layers on average, as a fraction of the depth; None for what the routers find likeliest."""
    curve: tuple[float, ...] = (0.95, 0.9, 0.85, 0.8, 0.7)
    """Budgets at which the routed model is evaluated too."""
    simulations: int = 50
    """Programs that the search tries on a question; 0 leaves it out."""
    runs: tuple[AnyPath, ...] | None = None
    """Run folders of the training, for the single program; None for those that the router names."""
    base: str | None = None
    """Where the base model lies, if not where the router was trained."""
    out: AnyPath | None = None
    """Folder of the results; None for the router's own."""
    resources: Resources = field(default_factory=Resources)
    """What actors run on."""

    def __post_init__(self) -> None:
        if self.simulations < 0:
            raise UserError(f"--simulations must not be below 0 (0 leaves the search out), got {self.simulations}")

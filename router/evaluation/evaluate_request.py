"""The request of an evaluation. The module imports no framework, so that ``evaluate --help`` starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath
from pipeline.tasks.task_options import TaskOptions


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """The request of ``drllm-pipeline evaluate``.

    Raises:
        UserError: A field is out of its range.
    """

    router: AnyPath | None = None
    """Router folder, or hub id."""
    menu: AnyPath | None = None
    """Instead of --router: menu folder, the programs of whose front are evaluated."""
    program: tuple[str, ...] = ()
    """Instead of --router: a layer program for all examples, as 0-5,5-9,12-29; may be repeated."""
    model: str | None = None
    """Base model of --program: hub id, local folder, .gguf file, or 'smollm2'."""
    against: tuple[AnyPath, ...] = ()
    """Another router of the same base model, evaluated on the same examples; may be repeated."""
    task: str = field(metadata=option(metavar="NAME"))
    """Task of the examples, as for search."""
    data: str | None = None
    """Source of the examples, as for search."""
    split: str = "test"
    """Split of a hub data set or of 'arithmetic'."""
    limit: int | None = None
    """Only the first N examples."""
    seed: int = 0
    """Seed of the examples that a task makes, of random programs and of the search."""
    max_new_tokens: int | None = field(default=None, metadata=option(unset="the task's own"))
    """Most tokens of a generated answer."""
    thinking: bool = False
    """Let the model think before its solution, as in the search of the training."""
    task_options: TaskOptions = field(default_factory=TaskOptions)
    """Columns, prompt and comparison of the rows of the task jsonl."""
    budget: float | None = None
    """Most layers of any program, as a fraction of the depth."""
    average: float | None = None
    """Layers on average, as a fraction of the depth."""
    curve: tuple[float, ...] = (0.95, 0.9, 0.85, 0.8, 0.7)
    """Budgets of the curve; '' for none."""
    simulations: int = field(default=50, metadata=option(at_least=0, note="0 leaves the search out"))
    """Programs that the search, which is the ceiling, evaluates per example; 0 for no search."""
    runs: tuple[AnyPath, ...] | None = None
    """Run folder of the training, if not where it was; may be repeated."""
    questions: tuple[str, ...] = field(default=(), metadata=option(unset="where the training found them"))
    """File, folder or hub data set of the training's examples, if they lie elsewhere now; one for each run, in its
    order."""
    base: str | None = None
    """Path of the base model, if it is not that of the training."""
    out: AnyPath | None = field(default=None, metadata=option(unset="the router's; none without a router"))
    """Folder of the results."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors."""

    def __post_init__(self) -> None:
        check_fields(self)
        given = [
            name
            for name, value in (("--router", self.router), ("--menu", self.menu), ("--program", self.program))
            if value
        ]
        if not given:
            raise UserError("give a router with --router, a menu with --menu, or a program with --program")
        if len(given) > 1:
            raise UserError(f"{given[0]} and {given[1]} are evaluated by two calls; leave one of them out")
        if self.model is not None and not self.program:
            raise UserError("--model goes with --program; say with --base where another model lies now")
        if self.program and self.model is None:
            raise UserError("--program needs its --model: a program is one of a model's layers")
        if self.program and self.base is not None:
            raise UserError("--program has its --model; leave --base out")
        if self.router is None:
            of_router = [
                name
                for name, is_given in (
                    ("--against", self.against),
                    ("--budget", self.budget is not None),
                    ("--average", self.average is not None),
                    ("--runs", self.runs is not None),
                    ("--questions", bool(self.questions)),
                )
                if is_given
            ]
            if of_router:
                raise UserError(f"{of_router[0]} goes with --router")

"""The request of a menu. The module imports no framework, so that ``menu --help`` starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath
from pipeline.tasks.task_options import TaskOptions


@dataclass(frozen=True, kw_only=True)
class MenuRequest:
    """The request of ``drllm-pipeline menu``.

    Raises:
        UserError: A field is out of its range, or excludes another one.
    """

    out: AnyPath
    """Menu folder; a race that was interrupted goes on."""
    data: str | None = None
    """Run folder, whose examples and model are taken, and whose right programs race too. With --task: source of the
    examples, as for search."""
    model: str | None = field(default=None, metadata=option(unset="the run's"))
    """Hub id, local folder, .gguf file, or 'smollm2'. With a run: its model, if it lies elsewhere now."""
    task: str | None = field(default=None, metadata=option(metavar="NAME"))
    """Task of the examples, as for search."""
    questions: str | None = field(default=None, metadata=option(unset="where the search found them"))
    """File, folder or hub data set of the run's examples, if they lie elsewhere now."""
    split: str = "train"
    """With --task: split of the examples, as for search."""
    limit: int | None = field(default=None, metadata=option(at_least=1))
    """Only the first N examples."""
    seed: int = 0
    """Seed of the examples that a task makes, and of the order of the race."""
    max_new_tokens: int | None = field(default=None, metadata=option(unset="the task's own"))
    """With --task: most tokens of a generated answer."""
    thinking: bool = False
    """With --task: let the model think before its solution."""
    permutations: int = field(default=1, metadata=option(metavar="K", at_least=1))
    """With --task: renderings of each example. A program's outcome is the share that it answers right."""
    task_options: TaskOptions = field(default_factory=TaskOptions)
    """The task's options."""
    size: int = field(default=24, metadata=option(at_least=2))
    """Most programs of the menu, the identity program among them."""
    budget: float = field(default=1.15, metadata=option(above=0))
    """Most layers of a program, as a fraction of the depth. Repeats buy accuracy that skips elsewhere pay for."""
    min_budget: float = field(default=0.7, metadata=option(above=0))
    """Fewest layers of a program, as a fraction of the depth."""
    layer_price: float = field(default=0.002, metadata=option(at_least=0))
    """Price of a layer, in right answers per example, where a program is chosen for what others gain from it."""
    held_out: float = field(default=0.2, metadata=option(above=0, below=1))
    """Share of the examples that no program is chosen on; the menu's figures are measured there."""
    evaluations: int | None = field(default=None, metadata=option(at_least=1, unset="as many as the race needs"))
    """Programs times examples that are run, about."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache"))
    """Folder of the prompts' features."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_budget > min(1.0, self.budget):
            raise UserError(
                f"--min-budget {self.min_budget:g} must be at most 1 and at most --budget {self.budget:g}: the "
                "identity program is on every menu"
            )
        if self.task is None:
            if self.data is None:
                raise UserError("give a run folder with --data, or a task with --task")
            given = [
                name
                for name, is_given in (
                    ("--split", self.split != "train"),
                    ("--max-new-tokens", self.max_new_tokens is not None),
                    ("--thinking", self.thinking),
                    ("--permutations", self.permutations != 1),
                )
                if is_given
            ]
            if given:
                raise UserError(f"{given[0]} goes with --task: a run has its own")
        elif self.model is None:
            raise UserError("--task needs a --model, such as --model smollm2")
        elif self.questions is not None:
            raise UserError("--questions goes with a run in --data; with --task, --data names the examples")

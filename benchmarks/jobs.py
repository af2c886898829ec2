"""The jobs of the harness's processes: search groups of examples as an actor does, or run a baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.baseline_runners import Baseline
from benchmarks.workloads import Workload
from pipeline.engine import FrozenModel, materialize
from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.group_search import ExampleSearch, search_group
from pipeline.search.selector import MakeSelector
from pipeline.search.tree import default_selector
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example, Outcome, PreparedExample


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The outcome of searches.

    Attributes:
        searched: The examples with their trees and outcomes.
        layers_run: Layers that the engine really ran.
    """

    searched: list[ExampleSearch[PreparedExample, Outcome]]
    layers_run: int

    @property
    def pairs(self) -> list[tuple[Example, LayerProgram, Outcome]]:
        """Every program that ran, with its example and its outcome."""
        return [
            (item.prepared.example, program, outcome)
            for item in self.searched
            for program, outcome in item.outcomes.items()
        ]

    @property
    def layers_asked(self) -> int:
        """Layers that running each program whole takes, in every pass."""
        return sum(outcome.layer_executions for _, _, outcome in self.pairs)


@dataclass(frozen=True, kw_only=True)
class SearchGroups:
    """Our side: the evaluator's own search, one group of examples after the other, as in an actor.

    Attributes:
        workload: The workload of the examples.
        config: The run's settings.
        examples: The examples; ``config.group_size`` of them make a group.
        selector: Builds the selector of programs.
        prior: The prior that guides the search; None for none.
        depth: Search the model of the first so many layers instead of all.
    """

    workload: Workload
    config: RunConfig
    examples: Sequence[Example]
    selector: MakeSelector = default_selector
    prior: Prior | None = None
    depth: int | None = None

    def __call__(self, model: FrozenModel) -> Callable[[], Found]:
        if self.depth is not None:
            first = LayerProgram(range(self.depth), model.num_layers)
            cache_bytes = model.prefixes.max_bytes
            model = FrozenModel(materialize(model.hf_model, first), model.tokenizer, cache_bytes=cache_bytes)
        task, size = self.workload.new_task(), self.config.group_size
        examples = [task.prepare(example, model.tokenizer) for example in self.examples]

        def run() -> Found:
            before = model.layers_run
            searched: list[ExampleSearch[PreparedExample, Outcome]] = []
            for start in range(0, len(examples), size):
                model.forget()
                searched += search_group(
                    examples[start : start + size],
                    num_layers=model.num_layers,
                    config=self.config,
                    score=partial(task.score, model),
                    prior=self.prior,
                    selector=self.selector,
                )
            return Found(searched=searched, layers_run=model.layers_run - before)

        return run


@dataclass(frozen=True, kw_only=True)
class RunBaseline:
    """A baseline's side: the same examples and programs.

    Attributes:
        workload: The workload of the examples.
        baseline: The baseline that runs the programs.
        pairs: Examples with their programs.
    """

    workload: Workload
    baseline: type[Baseline]
    pairs: Sequence[tuple[Example, LayerProgram]]

    def __call__(self, model: FrozenModel) -> Callable[[], list[Outcome]]:
        task = self.workload.new_task()
        baseline = self.baseline(model, task)
        prepared = {example.id: task.prepare(example, model.tokenizer) for example, _ in self.pairs}
        examples = [prepared[example.id] for example, _ in self.pairs]
        programs = [program for _, program in self.pairs]
        baseline.prepare(programs)
        baseline.score(examples[:1], programs[:1])  # a first call sets things up
        return lambda: baseline.score(examples, programs)

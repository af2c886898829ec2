"""The search methods that are compared program by program, and their runs on the engine of a baseline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmarks.baseline_runners import Baseline
from pipeline.engine import FrozenModel
from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.actions import Edit
from pipeline.search.config import PUBLISHED, SearchConfig
from pipeline.search.program_graph import ROOT_INDEX, ProgramGraph
from pipeline.search.selector import MakeSelector
from pipeline.search.tree import SearchTree, default_selector, stable_seed
from pipeline.search.verdicts import Verdict
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example, get_task

#: Random edits start over from the identity after at most this many.
MAX_RANDOM_EDITS = 3
#: Examples that an actor has in flight.
GROUP_SIZE = 8


class RandomEdits:
    """A selector that uses no results: one to three random edits of the identity program, each time anew."""

    def __init__(self, *, num_layers: int, config: SearchConfig, seed: int, prior: Prior | None) -> None:
        self._random = random.Random(seed)

    def select(self, graph: ProgramGraph) -> list[int]:
        """Make a node of a random program that is new."""
        program = graph.root.program
        while graph.find(program) is not None:
            program = graph.root.program
            for _ in range(1 + int(self._random.random() * MAX_RANDOM_EDITS)):
                edits = graph.edits(program)
                program = edits[int(self._random.random() * len(edits))].program
        return [ROOT_INDEX, graph.expand(ROOT_INDEX, Edit("random edits", program))]

    def note_proposal(self, graph: ProgramGraph, path: list[int]) -> None:
        """Do nothing: random edits do not depend on proposals or results."""

    def note_result(self, graph: ProgramGraph, path: list[int], verdict: Verdict, reward: float) -> None:
        """Do nothing: random edits do not depend on proposals or results."""


_UCB = replace(PUBLISHED["drllm"], stop_when_found=False)
#: One child a node: selection only ever lengthens the chain, as in the released code.
_CHAIN = replace(PUBLISHED["drllm"], widening=1.0, widening_power=0.0)


@dataclass(frozen=True, kw_only=True)
class SearchMethod:
    """A method of searching programs.

    Attributes:
        name: Name of the method.
        config: Settings of the search.
        selector: Builds the selector of its programs.
        guided: Whether the search uses a prior, fitted to calibration examples.
        leaves: Programs that a tree proposes at once.
    """

    name: str
    config: SearchConfig
    selector: MakeSelector = default_selector
    guided: bool = False
    leaves: int = 1


RELEASED = SearchMethod(name="released chain, its early stop", config=_CHAIN)
RANDOM = SearchMethod(name="random edits", config=_UCB, selector=RandomEdits)
UCB = SearchMethod(name="plain UCB", config=_UCB)
WITHOUT_PRIOR = SearchMethod(name="default, no prior", config=SearchConfig())
GUIDED = SearchMethod(name="default", config=SearchConfig(), guided=True)
SEARCH_METHODS = (
    RELEASED,
    RANDOM,
    UCB,
    WITHOUT_PRIOR,
    GUIDED,
    SearchMethod(name="default, 4 leaves", config=SearchConfig(), guided=True, leaves=4),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trail:
    """The course of a search of one example, program by program.

    Attributes:
        example_id: Id of the example.
        baseline_correct: Whether the base model is right.
        saved: Layers saved by the best right program within the budget, after each simulation; None
            before there is one. The identity counts.
        best: The best program at the end, as text; empty where there is none.
    """

    example_id: str
    baseline_correct: bool
    saved: list[int | None]
    best: str

    @classmethod
    def of(cls, example_id: str, tree: SearchTree) -> Trail:
        """The trail of a finished tree."""
        best: int | None = None
        saved: list[int | None] = []
        for verdict in tree.verdicts.values():
            if verdict.correct and verdict.program.within(tree.config.budget):
                best = max(verdict.program.saved_layers, -tree.num_layers if best is None else best)
            saved.append(best)
        found = tree.best()
        return cls(
            example_id=example_id,
            baseline_correct=tree.identity.correct,
            saved=saved[1:],
            best="" if found is None else str(found.program),
        )

    def after(self, simulations: int) -> int | None:
        """Layers saved after so many simulations, or fewer where the search ended before."""
        reached = self.saved[:simulations]
        return reached[-1] if reached else (0 if self.baseline_correct else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineSearchResult:
    """The trails of searches on a baseline's engine.

    Attributes:
        trails: Trail of each example.
        making_seconds: Seconds of making stock models of programs, a part of the whole time.
    """

    trails: list[Trail]
    making_seconds: float


@dataclass(frozen=True, kw_only=True)
class BaselineSearch:
    """A method's searches on a baseline's engine: one example, one program at a time.

    Attributes:
        method: The search method.
        baseline: The engine that runs programs.
        config: The run's settings, except for the method's own.
        examples: The examples to search.
        simulations: Programs evaluated on each example.
    """

    method: SearchMethod
    baseline: type[Baseline]
    config: RunConfig
    examples: Sequence[Example]
    simulations: int

    def __call__(self, model: FrozenModel) -> Callable[[], BaselineSearchResult]:
        task = get_task(self.config.task)
        examples = [task.prepare(example, model.tokenizer) for example in self.examples]
        warm = self.baseline(model, task)
        warm.score(examples[:1], [LayerProgram.identity(model.num_layers)])

        def run() -> BaselineSearchResult:
            trails, making = [], 0.0
            for prepared in examples:
                baseline = self.baseline(model, task)  # its stock models go with it
                tree = SearchTree(
                    num_layers=model.num_layers,
                    config=replace(self.method.config, simulations=self.simulations),
                    seed=stable_seed(self.config.seed, prepared.example_id),
                    selector=self.method.selector,
                )
                while (program := tree.propose()) is not None:
                    began = time.perf_counter()
                    baseline.prepare([program])
                    making += time.perf_counter() - began
                    [outcome] = baseline.score([prepared], [program])
                    tree.update(program, correct=outcome.correct, margin=outcome.margin)
                trails.append(Trail.of(prepared.example_id, tree))
            return BaselineSearchResult(trails=trails, making_seconds=making)

        return run

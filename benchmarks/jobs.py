"""What the lab's processes are given to do: search groups of questions as an actor does, or run a peer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peers import Peer
from benchmarks.workloads import Workload
from pipeline.config import RunConfig
from pipeline.engine import FrozenModel, materialize
from pipeline.evaluator import search_group
from pipeline.program import LayerProgram
from pipeline.tasks import Example, Outcome, Question


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A program that was run on a question."""

    example: Example
    program: LayerProgram
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What a search ran.

    Attributes:
        evaluations: Every program with its question, in the order in which they were run.
        layers_run: Layers that the engine really ran.
        layers_asked: Layers that running each program whole takes, in every pass.
    """

    evaluations: list[Evaluation]
    layers_run: int
    layers_asked: int


@dataclass(frozen=True, kw_only=True)
class SearchGroup:
    """Our side: the evaluator's own search of one group of questions.

    Attributes:
        workload: Whose questions they are.
        config: The run's settings.
        examples: The group.
        depth: Search the model of the first so many layers instead of all.
    """

    workload: Workload
    config: RunConfig
    examples: Sequence[Example]
    depth: int | None = None

    def __call__(self, model: FrozenModel) -> Callable[[], Searched]:
        if self.depth is not None:
            first = LayerProgram(range(self.depth), model.num_layers)
            cache_bytes = model.prefixes.max_bytes
            model = FrozenModel(materialize(model.hf_model, first), model.tokenizer, cache_bytes=cache_bytes)
        task = self.workload.new_task()
        questions = [task.prepare(example, model.tokenizer) for example in self.examples]
        evaluations: list[Evaluation] = []

        def score(asked: Sequence[Question], programs: Sequence[LayerProgram], need_response: bool) -> list[Outcome]:
            outcomes = task.scoring.score(model, asked, programs, need_response=need_response)
            evaluations.extend(
                Evaluation(example=question.example, program=program, outcome=outcome)
                for question, program, outcome in zip(asked, programs, outcomes)
            )
            return outcomes

        def run() -> Searched:
            model.prefixes.clear()
            before = model.layers_run
            search_group(questions, num_layers=model.num_layers, config=self.config, score=score)
            return Searched(
                evaluations=evaluations,
                layers_run=model.layers_run - before,
                layers_asked=sum(evaluation.outcome.layer_executions for evaluation in evaluations),
            )

        return run


@dataclass(frozen=True, kw_only=True)
class RunPeer:
    """A peer's side: the same questions and programs.

    Attributes:
        workload: Whose questions they are.
        peer: How they are run.
        pairs: Questions with their programs.
    """

    workload: Workload
    peer: type[Peer]
    pairs: Sequence[tuple[Example, LayerProgram]]

    def __call__(self, model: FrozenModel) -> Callable[[], list[Outcome]]:
        task = self.workload.new_task()
        peer = self.peer(model, task)
        asked = {example.id: task.prepare(example, model.tokenizer) for example, _ in self.pairs}
        questions = [asked[example.id] for example, _ in self.pairs]
        programs = [program for _, program in self.pairs]
        peer.prepare(programs)
        peer.score(questions[:1], programs[:1])  # whatever the first call of a kind sets up
        return lambda: peer.score(questions, programs)

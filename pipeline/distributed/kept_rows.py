"""Which of a question's programs are kept as rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pipeline.program import LayerProgram
from pipeline.search.group_search import ExampleSearch
from pipeline.search.verdicts import Verdict, ranked, unbeaten
from pipeline.shards.path_row import storable_counts
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Outcome, PreparedExample

#: What a program makes of a question when it is run once more, in another way.
Replay = Callable[[LayerProgram], Outcome]


def rows_to_keep(
    item: ExampleSearch[PreparedExample, Outcome], config: RunConfig, replay: Replay | None = None
) -> list[dict[str, Any]]:
    """A row for each program that the run keeps, and for the identity program.

    Right programs within the budget come first, best first. The keys are those of ``pipeline.shards.schema.SCHEMA``.

    Args:
        item: A question with its finished search.
        config: What the run keeps.
        replay: Asked of every program that is to have a row, if given. One whose verdicts it does not confirm has
            none, and the next best takes its place; the identity's row, which is there in any case, says what the
            replay says.
    """
    tree, example, identity = item.tree, item.prepared.example, item.tree.identity.program
    verdicts, outcomes = dict(tree.verdicts), dict(item.outcomes)
    if replay is not None:
        outcomes[identity] = replace(replay(identity), layer_executions=outcomes[identity].layer_executions)
        told = outcomes[identity]
        verdicts[identity] = Verdict(program=identity, correct=told.correct, margin=told.margin)
    confirmed = {identity}
    while True:
        right = [verdict.program for verdict in ranked(verdicts.values(), tree.config.budget)]
        kept = list(dict.fromkeys([*_chosen(verdicts, right, config), identity]))
        unknown = [program for program in kept if program not in confirmed]
        if replay is None or not unknown:
            break
        for program in unknown:
            if replay(program).verdicts == outcomes[program].verdicts:
                confirmed.add(program)
            else:
                del verdicts[program]
    layer_executions = sum(outcome.layer_executions for outcome in item.outcomes.values())
    return [
        {
            "example_id": example.id,
            "task": example.task,
            "prompt": item.prepared.prompt,
            "answer": example.answer,
            "response": outcomes[program].response,
            "program": list(program.layers),
            "counts": storable_counts(program),
            "length": len(program),
            "num_layers": program.num_layers,
            "saved_layers": program.saved_layers,
            "correct": outcomes[program].correct,
            "correct_as_asked": outcomes[program].correct_as_asked,
            "score": outcomes[program].margin,
            "baseline_correct": outcomes[identity].correct,
            "is_best": right[:1] == [program],
            "rank": right.index(program) + 1 if program in right else 0,
            "simulations": tree.simulations,
            "evaluations": len(item.outcomes),
            "layer_executions": layer_executions,
            "model": config.model.name,
            "run_id": config.run_id,
        }
        for program in kept
    ]


def _chosen(verdicts: dict[LayerProgram, Verdict], right: list[LayerProgram], config: RunConfig) -> list[LayerProgram]:
    """The programs that a run keeps of a question, right ones first."""
    if isinstance(config.keep, int):
        return right[: config.keep]
    wanted = list(verdicts)
    if config.keep == "pareto":
        wanted = [verdict.program for verdict in unbeaten(verdicts.values(), config.search.budget)]
    return [*(program for program in right if program in set(wanted)), *wanted]

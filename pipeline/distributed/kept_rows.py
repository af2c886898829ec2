"""The choice of an example's programs that are kept, their confirmation by replays, and their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.program import LayerProgram
from pipeline.search.group_search import ExampleSearch
from pipeline.search.verdicts import Verdict, pareto_verdicts, ranked
from pipeline.shards.path_row import PathRow, path_row
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Outcome, PreparedExample

#: Evaluates a program on an example once more, in another way than the search did.
Replay = Callable[[LayerProgram], Outcome]
Verdicts = dict[LayerProgram, Verdict]
Outcomes = dict[LayerProgram, Outcome]


def rows_to_keep(
    item: ExampleSearch[PreparedExample, Outcome], config: RunConfig, replay: Replay | None = None
) -> list[PathRow]:
    """A row for each program that the run keeps of an example, and for the identity program.

    Right programs within the budget come first, best first.

    Args:
        item: An example with its finished search.
        config: The run's settings.
        replay: If given, only programs are kept whose results the replay confirms; the identity program's row, which
            every example has, holds the replayed result.
    """
    verdicts, outcomes = dict(item.tree.verdicts), dict(item.outcomes)
    if replay is not None:
        verdicts, outcomes = confirm(item, config, replay)
    right = _right_programs(verdicts, config)
    return [
        path_row(
            example_id=item.prepared.example.id,
            task=item.prepared.example.task,
            prompt=item.prepared.prompt,
            answer=item.prepared.example.answer,
            response=outcomes[program].response,
            program=program,
            correct=outcomes[program].correct,
            correct_as_asked=outcomes[program].correct_as_asked,
            reason=outcomes[program].reason,
            margin=outcomes[program].margin,
            baseline_correct=outcomes[item.tree.identity.program].correct,
            rank=right.index(program) + 1 if program in right else 0,
            simulations=item.tree.simulations,
            evaluations=len(item.outcomes),
            layer_executions=sum(outcome.layer_executions for outcome in item.outcomes.values()),
            model=config.model.name,
            run_id=config.run_id,
        )
        for program in choose_programs(verdicts, config, identity=item.tree.identity.program)
    ]


def choose_programs(
    verdicts: Mapping[LayerProgram, Verdict], config: RunConfig, *, identity: LayerProgram
) -> list[LayerProgram]:
    """The programs that a run keeps of an example (``RunConfig.keep``): right ones first, best first; the identity too.

    Args:
        verdicts: The result of every program that was tried.
        config: The run's settings.
        identity: The identity program.
    """
    right = _right_programs(verdicts, config)
    if isinstance(config.keep, int):
        chosen = right[: config.keep]
    else:
        wanted = list(verdicts)
        if config.keep == "pareto":
            wanted = [verdict.program for verdict in pareto_verdicts(verdicts.values(), config.search.budget)]
        chosen = [*(program for program in right if program in set(wanted)), *wanted]
    return list(dict.fromkeys([*chosen, identity]))


def confirm(
    item: ExampleSearch[PreparedExample, Outcome], config: RunConfig, replay: Replay
) -> tuple[Verdicts, Outcomes]:
    """Replay the programs that are to be kept, until all of those are confirmed.

    A program whose replayed result differs is dropped, and the next best replaces it.

    Returns:
        The results without those of dropped programs, and the outcomes; the identity program's are the replayed ones.
    """
    verdicts, outcomes, identity = dict(item.tree.verdicts), dict(item.outcomes), item.tree.identity.program
    replayed = replace(replay(identity), layer_executions=outcomes[identity].layer_executions)
    outcomes[identity] = replayed
    verdicts[identity] = Verdict(program=identity, correct=replayed.correct, margin=replayed.margin)
    confirmed = {identity}
    while unconfirmed := [p for p in choose_programs(verdicts, config, identity=identity) if p not in confirmed]:
        for program in unconfirmed:
            if replay(program).verdicts == outcomes[program].verdicts:
                confirmed.add(program)
            else:
                del verdicts[program]
    return verdicts, outcomes


def _right_programs(verdicts: Mapping[LayerProgram, Verdict], config: RunConfig) -> list[LayerProgram]:
    """The right programs within the budget, best first."""
    return [verdict.program for verdict in ranked(verdicts.values(), config.search.budget)]

"""The races of a menu, one after the other: from all single edits to the programs that finish.

Blocks that do well alone are combined: pairs and triples of the best, and greedy chains of skips, each of which drops
the layer whose absence hurts least (TALE, 2510.22767). Programs that a search found join them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import chain, islice

from pipeline.program import LayerProgram
from router.menu.block_edits import BlockEdit, combined_edits, edited, go_together, single_edits
from router.menu.race_plan import CHAIN_WIDTH, PAIRED, TRIPLED, RacePlan
from router.menu.racing import Complements, RaceResult, Round, RunsPrograms, race, ranking


def finalists(
    plan: RacePlan,
    run: RunsPrograms,
    *,
    num_layers: int,
    found: Sequence[LayerProgram] = (),
    compare_margins: bool,
    complements: Complements | None = None,
    on_round: Callable[[str, Round], None] = lambda stage, one: None,
) -> list[LayerProgram]:
    """Let all candidates race.

    Args:
        plan: How many candidates run on how many examples.
        run: Runs programs on examples.
        num_layers: Depth L of the model.
        found: Programs that a search found right on most examples.
        compare_margins: Whether margins, squashed, rank programs with equally many right answers.
        complements: Chooses half of those that go on, by what is gained from them; None for the best ones alone.
        on_round: Called with the name of the race and each of its rounds.

    Returns:
        The programs that finished, the best first, and the identity program, which always does. All have outcomes on
        the examples of the last round.
    """
    identity = LayerProgram.identity(num_layers)
    limits = {"num_layers": num_layers, "least": plan.least, "most": plan.most}

    def raced(stage: str, candidates: Sequence[LayerProgram], sizes: Sequence[int]) -> RaceResult:
        return race(
            list(dict.fromkeys([identity, *candidates])),
            run,
            sizes=sizes,
            finishers=plan.finishers,
            compare_margins=compare_margins,
            complements=complements,
            on_round=lambda one: on_round(stage, one),
        )

    singles_in_order = list(single_edits(**limits))
    if plan.num_singles < len(singles_in_order):
        # Of all kinds and places some, where not all can race.
        random.Random("single edits").shuffle(singles_in_order)
    edits = {edited([edit], num_layers): edit for edit in singles_in_order[: plan.num_singles]}
    singles = raced("single edits", list(edits), plan.screening)
    best = [edits[program] for program in singles.order if program in edits]
    combined = islice(
        chain(combined_edits(best[:PAIRED], 2, **limits), combined_edits(best[:TRIPLED], 3, **limits)),
        plan.num_combined,
    )
    within = [program for program in found if plan.least <= len(program) <= plan.most]
    chained = greedy_chain(
        best,
        run,
        range(plan.chain_examples),
        num_layers=num_layers,
        steps=plan.chain_steps,
        compare_margins=compare_margins,
    )
    candidates = [*(edited(some, num_layers) for some in combined), *within]
    combinations = raced("combinations", candidates, plan.screening) if candidates else None
    going_on = singles.kept + (combinations.kept if combinations is not None else [])
    last = raced("finalists", [*going_on, *chained], plan.final)
    run([identity], range(plan.final[-1]))
    return list(dict.fromkeys([*last.ranked, identity]))


def greedy_chain(
    ranked: Sequence[BlockEdit],
    run: RunsPrograms,
    examples: range,
    *,
    num_layers: int,
    steps: int,
    compare_margins: bool,
) -> list[LayerProgram]:
    """The programs that drop one layer after the other, each time the one whose absence hurts least.

    Args:
        ranked: Single edits, the best first; those that skip one layer are tried, the best of them first.
        run: Runs programs on examples.
        examples: The examples that decide each step.
        num_layers: Depth L of the model.
        steps: Layers to drop.
        compare_margins: As for ``finalists``.
    """
    skips = [edit for edit in ranked if edit.times == 0 and edit.span == 1]
    chained: list[BlockEdit] = []
    programs: list[LayerProgram] = []
    for _ in range(steps):
        tried = [edit for edit in skips if edit not in chained and go_together(sorted([*chained, edit]))][:CHAIN_WIDTH]
        if not tried or len(chained) + 1 >= num_layers:
            break
        of_tried = [edited([*chained, edit], num_layers) for edit in tried]
        outcomes = run(of_tried, examples)
        first = ranking(outcomes, of_tried, compare_margins=compare_margins)[0]
        chained.append(tried[first])
        programs.append(of_tried[first])
    return programs

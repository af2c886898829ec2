"""Races: the better programs go on, all on the same examples, and few evaluations find them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.program import LayerProgram
from router.menu.block_edits import edited, single_edits
from router.menu.choice import SelectorComplements
from router.menu.menu_request import MenuRequest
from router.menu.race_plan import RacePlan
from router.menu.racing import KEPT_AT_A_LENGTH, Outcomes, race, ranking, round_sizes, squashed, survivors
from router.menu.stages import finalists, greedy_chain

DEPTH = 8


class MadeUp:
    """Programs that are right with chances of their own; outcomes are the same each time, and are counted."""

    def __init__(self, chances, num_examples=1000, *, luck=True):
        self.chances, self.num_examples, self.luck = chances, num_examples, luck
        self.known: dict[LayerProgram, set[int]] = {}

    def column(self, program):
        # Without luck, a program with a higher chance is right wherever one with a lower chance is.
        rng = np.random.default_rng(program.layers if self.luck else 0)
        return rng.random(self.num_examples) < self.chances(program)

    def __call__(self, programs, examples):
        for program in programs:
            self.known.setdefault(program, set()).update(examples)
        right = np.stack([self.column(program)[examples] for program in programs], axis=1).astype(float)
        return Outcomes(right=right, margins=np.where(right > 0, 1.0, -1.0))

    @property
    def evaluations(self):
        return sum(map(len, self.known.values()))


def skips():
    return [edited([edit], DEPTH) for edit in single_edits(DEPTH, least=5, most=DEPTH) if edit.times == 0]


def test_rounds_double_up_to_the_last():
    """Catches a race that ends before all examples, or runs a round twice."""
    assert round_sizes(32, 300) == [32, 64, 128, 256, 300]
    assert round_sizes(32, 32) == round_sizes(64, 32) == [32]


def test_the_best_program_wins_with_few_evaluations():
    """Catches a race that drops the best, or that runs everything on everything."""
    best = skips()[5]
    made = MadeUp(lambda program: 0.7 if program == best else 0.4 + 0.01 * (len(program) % 3))
    found = race(skips(), made, sizes=round_sizes(32, 1000), finishers=3, compare_margins=False)
    assert found.ranked[0] == best and len(found.rounds[-1].programs) >= 3
    assert found.evaluations == made.evaluations < 0.4 * len(skips()) * 1000
    assert set(found.order) == set(skips()) and found.order[0] == best


def test_a_program_for_one_kind_of_examples_goes_on():
    """Catches a race of the best ones alone: what is right on one kind of examples is wrong on all others.

    And a race that keeps a program for its luck: where prompts tell nothing, the best ones go on.
    """
    rng = np.random.default_rng(0)
    kind = rng.random(1000) < 0.3
    special = skips()[9]

    def outcomes(programs, examples):
        right = [
            kind[examples]
            if program == special
            else np.random.default_rng(program.layers).random(1000)[examples] < 0.45 - 0.1 * kind[examples]
            for program in programs
        ]
        return Outcomes(right=np.stack(right, axis=1).astype(float), margins=np.zeros((len(examples), len(programs))))

    def finishing(summaries):
        complements = SelectorComplements(summaries=summaries, layer_price=0.0)
        found = race(
            skips(), outcomes, sizes=[64, 128, 256], finishers=4, compare_margins=False, complements=complements
        )
        assert found.ranked[:2] == found.kept[:2]
        return found.kept

    telling = np.column_stack([kind + 0.1 * rng.normal(size=1000), rng.normal(size=(1000, 5))])
    assert special in finishing(telling)
    assert special not in finishing(rng.normal(size=(1000, 6)))
    alone = race(skips(), outcomes, sizes=[64, 128, 256], finishers=4, compare_margins=False)
    assert special not in alone.kept


def test_every_program_of_a_round_sees_the_same_examples():
    """Catches candidates that are compared by their luck with the examples."""
    made = MadeUp(lambda program: 0.5)
    found = race(skips(), made, sizes=[32, 64], finishers=3, compare_margins=False)
    for one in found.rounds:
        assert all(made.known[program] >= set(range(one.examples)) for program in one.programs)


def test_margins_rank_programs_with_equal_answers_and_nothing_else():
    """Catches a tie-break that outweighs an answer, and one where margins do not compare."""
    programs = [LayerProgram(range(1, 4), 4), LayerProgram(range(3), 4), LayerProgram.identity(4)]
    right = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    margins = np.array([[0.1, 5.0, -0.1], [-9.0, -0.1, -0.01]])
    outcomes = Outcomes(right=right, margins=margins)
    assert ranking(outcomes, programs, compare_margins=True) == [1, 0, 2]
    assert ranking(outcomes, programs, compare_margins=False) == [0, 1, 2]


def test_margins_that_are_no_numbers_rank_last():
    """Catches a program whose logits overflow, and which wins or breaks the race."""
    margins = np.array([[np.nan, 1.0, -np.inf], [0.5, -1.0, np.inf]])
    assert np.isfinite(squashed(margins)).all() and squashed(margins)[0, 0] == -1
    assert np.isfinite(squashed(np.full((2, 2), np.nan))).all()
    many = np.full((10, 2), -np.inf)
    many[:5] = [0.1, 0.9]
    assert squashed(many)[0, 0] < squashed(many)[0, 1] - 0.1, "many overflows make all other margins alike"


def test_short_programs_stay_however_many_longer_ones_are_better():
    """Catches a front without short programs: they lose to longer ones in every round."""
    ranked = sorted(skips(), key=len, reverse=True)
    kept = survivors(ranked, range(4))
    assert {len(program) for program in kept} == {len(program) for program in ranked}
    assert kept[:4] == ranked[:4] and len(kept) < len(ranked)
    # The best ones of a length, and not those that were chosen for what others gain from them.
    shortest = [place for place, program in enumerate(ranked) if len(program) == len(ranked[-1])]
    kept = survivors(ranked, [0, *shortest[-2:]])
    assert {ranked[place] for place in (0, *shortest[:KEPT_AT_A_LENGTH], *shortest[-2:])} <= set(kept)


def test_a_chain_drops_the_layer_whose_absence_hurts_least():
    """Catches a chain in the order of the single skips: the best pair need not hold the best two."""
    harm = {3: 0.05, 4: 0.1, 1: 0.2, 6: 0.3}

    def chances(program):
        gone = set(range(DEPTH)) - set(program.layers)
        return 0.9 - sum(harm.get(layer, 0.4) for layer in gone) - (0.5 if {3, 4} <= gone else 0.0)

    edits = [edit for edit in single_edits(DEPTH, least=5, most=DEPTH) if edit.span == 1]
    edits.sort(key=lambda edit: harm.get(edit.start, 0.4))
    programs = greedy_chain(
        edits, MadeUp(chances, luck=False), range(200), num_layers=DEPTH, steps=2, compare_margins=False
    )
    assert [str(program) for program in programs] == ["0-2,4-7", "0,2,4-7"]


def plan_of(num_racing=400, num_held_out=100, **changed):
    request = MenuRequest(
        out=".", model="smollm2", task="arithmetic", **{"size": 4, "min_budget": 0.6, "budget": 1.3, **changed}
    )
    return RacePlan.of(request, num_layers=DEPTH, num_racing=num_racing, num_held_out=num_held_out)


def test_the_stages_find_a_pair_that_no_single_edit_shows_whole():
    """Catches combinations that never race: here only skipping one layer and repeating another is really good."""
    skip, repeat = 2, 5

    def chances(program):
        counts = program.counts or ()
        found = (counts[skip] == 0, counts[repeat] == 2) if counts else (False, False)
        return {0: 0.3, 1: 0.45, 2: 0.8}[sum(found)] - 0.05 * abs(len(program) - DEPTH)

    made, rounds = MadeUp(chances), []
    plan = plan_of()
    found = finalists(
        plan, made, num_layers=DEPTH, compare_margins=False, on_round=lambda stage, one: rounds.append((stage, one))
    )
    assert str(found[0]) == "0-1,3-5,5-7"
    assert LayerProgram.identity(DEPTH) in found and {stage for stage, _ in rounds} == {
        "single edits",
        "combinations",
        "finalists",
    }
    # Whatever the menu is chosen from has outcomes on all examples of the last round.
    assert all(made.known[program] >= set(range(plan.final[-1])) for program in found)


def test_programs_of_a_search_race_too():
    """Catches a run's programs that are forgotten, and one beyond the budget that races."""
    good, long = LayerProgram((0, 2, 4, 6, 7), DEPTH), LayerProgram([*range(DEPTH)] * 2, DEPTH)
    made = MadeUp(lambda program: 0.9 if program in (good, long) else 0.3)
    found = finalists(plan_of(), made, num_layers=DEPTH, found=[long, good], compare_margins=False)
    assert found[0] == good and long not in made.known


@pytest.mark.parametrize("bound", [6000, 9000, 20_000])
def test_a_bound_on_evaluations_holds(bound):
    """Catches a race that takes more than it may: at most the programs that stay for the front go beyond."""
    plan = plan_of(evaluations=bound)
    made = MadeUp(lambda program: 0.5)
    found = finalists(plan, made, num_layers=DEPTH, compare_margins=False)
    made([*found[:4]], range(500))
    assert plan.evaluations <= bound and made.evaluations <= 1.15 * bound
    assert (f"{plan.num_singles} of {plan.all_singles} single edits race" in plan.describe()) == (bound < 20_000)


def test_a_bound_that_is_too_low_is_refused():
    """Catches a race of one program."""
    with pytest.raises(ValueError, match=r"--evaluations 500 is too low: .* takes \d+ at least"):
        plan_of(evaluations=500)


def test_budgets_without_a_program_are_refused():
    """Catches a race of the identity program alone."""
    with pytest.raises(ValueError, match="no program but the identity has 8 to 8 of 8 layers"):
        plan_of(min_budget=1.0, budget=1.0)

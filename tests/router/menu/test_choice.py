"""The choice of a menu: the front, and programs that examples gain from by more than luck."""

from __future__ import annotations

import numpy as np

from pipeline.program import LayerProgram
from pipeline.significance import bootstrap_interval, holm, interval_of_shares
from router.menu.choice import cover, front
from router.menu.figures import menu_programs
from router.menu.ridge import leave_one_out

IDENTITY, SHORT, SHORTER, LONG = (
    LayerProgram.identity(6),
    LayerProgram.parse("0-3,5", 6),
    LayerProgram.parse("0-2,5", 6),
    LayerProgram.parse("0-3,3-5", 6),
)
PROGRAMS = [IDENTITY, SHORT, SHORTER, LONG]


def test_the_front_rises_with_the_length():
    """Catches a longer program that is no better, and two of one length."""
    right = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=float)
    assert front(right, PROGRAMS) == [2, 1, 3]
    assert front(np.zeros((3, 4)), PROGRAMS) == [2]


def test_a_program_for_some_examples_is_taken_and_a_lucky_one_is_not():
    """Catches a cover by the best case: every program is right somewhere, and only one where it can be foreseen."""
    rng = np.random.default_rng(0)
    kind = rng.random(800) < 0.5
    inputs = np.column_stack([kind + 0.1 * rng.normal(size=800), rng.normal(size=(800, 5))])
    base = rng.random(800) < 0.4
    suits = np.where(kind, rng.random(800) < 0.8, rng.random(800) < 0.1)
    lucky = rng.random((800, 6)) < 0.4
    right = np.column_stack([base, suits, lucky]).astype(float)
    programs = [IDENTITY, SHORT, *(LayerProgram.parse(f"0-{layer},5", 6) for layer in range(4)), LONG, SHORTER]
    predicted = leave_one_out(inputs, right - right[:, :1])
    chosen = cover(right, predicted, programs, given=[0], size=2, layer_price=0.0)
    assert chosen == [0, 1]
    picked = predicted[:, chosen].argmax(1)
    assert right[np.arange(800), picked].mean() > base.mean() + 0.15


def test_a_menu_ends_where_nothing_is_promised():
    """Catches a menu that is filled up with programs of which no gain is predicted on any example."""
    right = np.column_stack([np.ones(50), np.zeros((50, 3))])
    assert cover(right, right - 1.5, PROGRAMS, given=[0], size=4, layer_price=0.0) == [0]


def test_a_menu_is_filled_with_what_promises_most():
    """Catches a promise that comes before a measured gain, and the smaller promise before the larger one."""
    right = np.column_stack([np.zeros((50, 1)), np.zeros((50, 2)), np.ones((50, 1))])
    predicted = np.zeros((50, 4))
    predicted[:10, 1], predicted[10:30, 2], predicted[30:, 3] = 0.1, 0.1, 0.01
    assert cover(right, predicted, PROGRAMS, given=[0], size=4, layer_price=0.0) == [0, 3, 2, 1]
    assert cover(right, predicted, PROGRAMS, given=[0], size=3, layer_price=0.0) == [0, 3, 2]


def test_a_price_makes_short_programs_worth_it():
    """Catches a price of layers that has no effect, or the wrong sign."""
    right = np.ones((50, 4))
    zero = np.zeros((50, 4))
    assert cover(right, zero, PROGRAMS, given=[0], size=2, layer_price=0.01) == [0, 2]
    assert cover(right, zero, PROGRAMS, given=[0], size=2, layer_price=0.0) == [0]


def test_holm_keeps_the_order_and_corrects_the_smallest_most():
    """Catches p-values that are uncorrected, corrected alike, or handed back in another order."""
    assert holm([0.04, 0.001, 0.03]) == [0.06, 0.003, 0.06]
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_an_interval_of_shares_holds_their_mean():
    """Catches an interval of another figure than the one that it stands beside."""
    shares = [0.25, 0.5, 0.5, 0.75, 1.0] * 40
    low, high = interval_of_shares(shares)
    assert low < 0.6 < high and high - low < 0.1
    right = [True] * 30 + [False] * 70
    assert np.allclose(interval_of_shares(right), bootstrap_interval(right), atol=0.02)


def test_figures_are_of_the_held_out_examples_alone():
    """Catches a figure on examples that the programs were chosen on, which flatters the winner."""
    chosen_on = np.zeros((40, 4))
    chosen_on[:, 1] = 1
    held_out = np.zeros((60, 4))
    held_out[:30, 0], held_out[20:60, 3] = 1, 1
    figures = menu_programs(PROGRAMS, np.vstack([chosen_on, held_out]), num_held_out=60)
    assert [one.right for one in figures] == [0.5, 0.0, 0.0, 40 / 60]
    assert [(one.won, one.lost) for one in figures] == [(0, 0), (0, 30), (0, 30), (30, 20)]
    assert [one.on_front for one in figures] == [False, True, True, False]
    assert figures[0].p_value == 1.0 and figures[3].p_value > 0.2 > figures[1].p_value
    assert figures[3].low < figures[3].right < figures[3].high

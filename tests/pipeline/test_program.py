"""Layer programs: every way to make one, what it says of itself, and its edits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import LayerProgram


@st.composite
def programs(draw) -> LayerProgram:
    """Any program of a model of up to 40 layers."""
    depth = draw(st.integers(1, 40))
    layers = draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=2 * depth))
    return LayerProgram(layers, depth)


all_counts = st.lists(st.integers(0, 4), min_size=1, max_size=40).filter(any)


def test_the_ways_to_make_one_agree():
    """Catches a constructor that reads its argument differently from the others."""
    program = LayerProgram((0, 1, 1, 3), num_layers=4)
    assert program == LayerProgram.from_counts([1, 2, 0, 1]) == LayerProgram.parse("0-1,1,3", 4)
    assert LayerProgram.identity(4) == LayerProgram((0, 1, 2, 3), 4) == LayerProgram.from_counts([1, 1, 1, 1])
    assert LayerProgram(iter([2, 0]), 4) == LayerProgram(np.array([2, 0], dtype=np.int16), 4)
    assert all(type(layer) is int for layer in LayerProgram(np.array([2, 0], dtype=np.int16), 4))


@given(all_counts)
def test_counts_round_trip(counts):
    """Catches a program that does not come back from its own counts, as a router would read them."""
    program = LayerProgram.from_counts(counts)
    assert program.counts == tuple(counts)
    assert LayerProgram.from_counts(program.counts) == program
    assert len(program) == sum(counts)


@given(programs())
def test_counts_are_given_exactly_where_they_say_the_program(program):
    """Catches counts for a program whose order they would lose, and none where they would do."""
    in_order = list(program.layers) == sorted(program.layers)
    assert (program.counts is not None) == in_order
    if in_order:
        assert LayerProgram.from_counts(program.counts) == program


@given(programs())
def test_text_round_trips(program):
    """Catches a compact text that parse reads as another program."""
    assert LayerProgram.parse(str(program), program.num_layers) == program


def test_text_is_compact():
    """Catches a text form that changes, because golden trees and messages hold it."""
    assert str(LayerProgram.identity(30)) == "0-29"
    assert str(LayerProgram((0, 1, 2, 2, 5, 4), 6)) == "0-2,2,5,4"
    assert LayerProgram.parse(" 0-2, 2 ,5", 6).layers == (0, 1, 2, 2, 5)


def test_a_program_cannot_be_changed():
    """Catches a mutable program, which would rot the search's tables that are keyed by it."""
    program = LayerProgram([0, 1], 2)
    for name in ("layers", "num_layers"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(program, name, ())
    with pytest.raises((AttributeError, TypeError)):
        program.note = "slots leave no room"  # type: ignore[attr-defined]
    assert isinstance(program.layers, tuple)


def test_equality_and_hash_follow_layers_and_depth():
    """Catches two models' programs taken for one, or one program taken for two."""
    assert {LayerProgram([0, 1], 3), LayerProgram((0, 1), 3)} == {LayerProgram.parse("0-1", 3)}
    assert LayerProgram((0, 1), 3) != LayerProgram((0, 1), 2)
    assert LayerProgram((0, 1), 3) != LayerProgram((1, 0), 3)


@given(programs(), st.data())
def test_edits_touch_only_their_span(program, data):
    """Catches an edit off by one at either end of its span."""
    position = data.draw(st.integers(0, len(program) - 1))
    span = data.draw(st.integers(1, len(program) - position))
    times = data.draw(st.integers(1, 4))
    before, block, after = (
        program.layers[:position],
        program.layers[position : position + span],
        program.layers[position + span :],
    )
    assert program.repeat(position, span, times).layers == before + block * (1 + times) + after
    if span < len(program):
        assert program.skip(position, span).layers == before + after
        assert program.repeat(position, span).skip(position, span) == program


def test_what_a_program_says_of_itself():
    """Catches a wrong sign of saved_layers or an identity that any full-length program passes for."""
    identity = LayerProgram.identity(4)
    assert identity.is_identity and identity.saved_layers == 0 and identity.counts == (1, 1, 1, 1)
    assert not LayerProgram((0, 1, 2, 2), 4).is_identity
    assert not LayerProgram((1, 0, 2, 3), 4).is_identity
    assert LayerProgram((0, 3), 4).saved_layers == 2
    assert LayerProgram((0, 0, 1, 2, 3), 4).saved_layers == -1
    assert list(LayerProgram((3, 1), 4)) == [3, 1]


@pytest.mark.parametrize("depth", [3, 7, 28, 30, 32, 80, 100])
def test_budget_at_its_exact_edges(depth):
    """Catches a budget of exactly k layers that its binary fraction turns into k - 1 or k + 1."""
    for length in range(1, 2 * depth):
        budget = length / depth
        assert LayerProgram([0] * length, depth).within(budget), budget
        assert not LayerProgram([0] * (length + 1), depth).within(budget), budget


@pytest.mark.parametrize(("budget", "longest"), [(0.1, 3), (0.7, 21), (0.3, 9), (0.9, 27), (1.1, 33), (0.99, 29)])
def test_budget_as_it_is_typed(budget, longest):
    """Catches a decimal budget, not a quotient, that misses its edge."""
    assert LayerProgram([0] * longest, 30).within(budget)
    assert not LayerProgram([0] * (longest + 1), 30).within(budget)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: LayerProgram((), 4), "at least one layer"),
        (lambda: LayerProgram((0,), 0), "got 0"),
        (lambda: LayerProgram.identity(-2), "got -2"),
        (lambda: LayerProgram((0, 4), 4), "layer 4 at position 1.*4 layers"),
        (lambda: LayerProgram((-1,), 4), "layer -1 at position 0"),
        (lambda: LayerProgram.from_counts([1, -3]), "layer 1 .*-3"),
        (lambda: LayerProgram.from_counts([0, 0]), "at least one layer"),
        (lambda: LayerProgram.from_counts([]), "got 0"),
        (lambda: LayerProgram.parse("", 4), "''"),
        (lambda: LayerProgram.parse("0,x", 4), "'x'"),
        (lambda: LayerProgram.parse("0,-1", 4), "'-1'"),
        (lambda: LayerProgram.parse("0-4", 4), "'0-4'.*0 to 3"),
        (lambda: LayerProgram.parse("3-1", 4), "'3-1'"),
        (lambda: LayerProgram.identity(3).skip(0, 3), "at least one layer"),
        (lambda: LayerProgram.identity(3).skip(2, 2), "positions 2 to 3.*3 layers"),
        (lambda: LayerProgram.identity(3).skip(-1), "positions -1"),
        (lambda: LayerProgram.identity(3).skip(0, 0), "positions 0"),
        (lambda: LayerProgram.identity(3).repeat(3), "positions 3"),
        (lambda: LayerProgram.identity(3).repeat(0, times=0), "times=0"),
    ],
)
def test_every_refusal_names_the_value(make, named):
    """Catches a bad program that is let through, or refused without saying which part of it is bad."""
    with pytest.raises(ValueError, match=named):
        make()

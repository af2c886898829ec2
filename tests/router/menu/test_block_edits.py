"""Block edits: every program near the identity once, and sets of edits that go together."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.program import LayerProgram
from router.menu.block_edits import MOST_AGAIN, MOST_SPAN, BlockEdit, combined_edits, edited, single_edits

EDITS = st.builds(
    BlockEdit,
    start=st.integers(0, 9),
    span=st.integers(1, MOST_SPAN),
    times=st.sampled_from([0, *range(2, MOST_AGAIN + 2)]),
)


def test_single_edits_lead_to_different_programs_within_the_lengths():
    """Catches a program that races twice, one that is too long, and a kind of block that is forgotten."""
    edits = list(single_edits(8, least=6, most=10))
    programs = [edited([edit], 8) for edit in edits]
    assert len(set(programs)) == len(programs)
    assert {len(program) for program in programs} == {6, 7, 9, 10}
    assert {str(program) for program in programs} >= {"1-7", "0-2,5-7", "0-3,3-7", "0-3,3,3-7", "0-3,2-7"}
    assert all(not program.is_identity for program in programs)


def test_no_program_is_empty():
    """Catches a model of few layers of which an edit leaves none."""
    assert all(len(edited([edit], 2)) >= 1 for edit in single_edits(2, least=0, most=9))


@given(st.lists(EDITS, max_size=4))
def test_a_program_is_its_blocks_in_order(edits):
    """Catches a block that runs at another place, or another number of times, than the edit says."""
    in_order = sorted(edits)
    if any(one.stop > other.start for one, other in pairwise(in_order)):
        with pytest.raises(ValueError, match="a layer in common"):
            edited(edits, 14)
        return
    layers = list(range(14))
    for edit in reversed(in_order):
        layers[edit.start : edit.stop] = layers[edit.start : edit.stop] * edit.times
    if layers:
        assert edited(edits, 14) == LayerProgram(layers, 14)
        assert len(layers) == 14 + sum(edit.added_layers for edit in edits)


def test_combinations_have_no_layer_in_common_and_keep_the_lengths():
    """Catches a layer that two edits want otherwise, and lengths that add up beyond the budget."""
    edits = list(single_edits(6, least=4, most=7))
    for number in (2, 3):
        found = list(combined_edits(edits, number, num_layers=6, least=5, most=6))
        programs = [edited(some, 6) for some in found]
        assert found and all(5 <= len(program) <= 6 for program in programs)
        assert all(one.stop <= other.start for some in found for one, other in pairwise(some))

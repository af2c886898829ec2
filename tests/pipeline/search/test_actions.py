"""The action spaces: which programs are one edit away."""

from __future__ import annotations

import pytest

from pipeline.program import LayerProgram
from pipeline.search.action_spaces import ACTION_SPACES
from pipeline.search.actions import cola, drllm

SIX = LayerProgram.identity(6)


def programs(edits):
    return [edit.program for edit in edits]


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES.keys())
def test_no_edit_is_a_no_op_or_appears_twice(space):
    """Catches edits that cost an evaluation and change nothing, as one of the released actions does."""
    frontier = [SIX]
    for _ in range(2):
        for program in frontier:
            neighbours = programs(space.edits(program, 12))
            assert program not in neighbours
            assert len(neighbours) == len(set(neighbours))
        frontier = neighbours[::7]


@pytest.mark.parametrize("space", ACTION_SPACES.values(), ids=ACTION_SPACES.keys())
def test_programs_stay_within_the_cap_and_never_empty(space):
    """Catches lengths of 0 and beyond the cap, both of which the released search reaches."""
    program = SIX
    for step in range(40):
        neighbours = programs(space.edits(program, 9))
        if not neighbours:
            break
        assert all(1 <= len(neighbour) <= 9 for neighbour in neighbours)
        program = neighbours[(step * 5) % len(neighbours)]


def test_drllm_skips_one_or_two_and_repeats_one():
    """Catches a missing or an extra kind of edit: 6 single skips, 5 double skips, 6 repeats."""
    neighbours = programs(drllm(SIX, 12))
    assert len(neighbours) == 6 + 5 + 6
    assert SIX.skip(2) in neighbours and SIX.skip(2, 2) in neighbours and SIX.repeat(5) in neighbours


def test_drllm_edits_a_layer_once():
    """Catches counts outside {0, 1, 2}, and edits that undo an earlier one."""
    for neighbour in programs(drllm(SIX.repeat(3), 12)):
        assert neighbour.counts is not None
        assert neighbour.counts[3] == 2 and max(neighbour.counts) <= 2


def test_drllm_refuses_programs_of_the_other_space():
    """Catches a program whose counts cannot say it being edited as if they could."""
    with pytest.raises(ValueError, match="counts"):
        drllm(SIX.repeat(1, 3), 12)


def test_cola_repeats_blocks_and_nests():
    """Catches block repeats that are spread out layer by layer, and repeats of a repeat being left out."""
    neighbours = programs(cola(SIX, 12))
    assert LayerProgram((0, 1, 2, 1, 2, 3, 4, 5), 6) in neighbours
    assert LayerProgram((0, 1, 1, 1, 1, 1, 2, 3, 4, 5), 6) in neighbours
    assert LayerProgram((0, 5), 6) in neighbours
    repeated = SIX.repeat(1, 2)
    assert repeated.repeat(2, 2) in programs(cola(repeated, 12))
    assert SIX in programs(cola(repeated, 12)), (
        "a nested skip can undo a repeat; the tree's table keeps it from being rerun"
    )


def test_labels_name_layers_not_positions():
    """Catches what was learnt of an edit being lost, or given to another, once layers before it are gone."""
    assert {edit.program: edit.label for edit in drllm(SIX.skip(0), 12)}[SIX.skip(0).skip(3)] == "skip 4"
    labels = {edit.label for edit in cola(SIX, 12)}
    assert {"skip 1-4", "repeat 2", "repeat 2-3 x3"} <= labels

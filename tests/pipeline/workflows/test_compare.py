"""The comparison of a row's label with its replay, without a cluster."""

from __future__ import annotations

import pytest

from pipeline.program import LayerProgram
from pipeline.tasks import Outcome
from pipeline.workflows.verify import ReplayedLabel, compare

PROGRAM = LayerProgram((0, 2), 3)


@pytest.mark.parametrize(
    ("label", "replayed", "difference"),
    [
        ((True, None), (True, None), None),
        ((True, None), (False, None), (True, False)),
        ((False, None), (True, None), (False, False)),
        ((False, True), (False, True), None),
        ((False, True), (False, False), (True, True)),
        ((True, True), (False, False), (True, False)),
        ((False, True), (True, True), (False, False)),
    ],
)
def test_a_difference_says_which_result_differs(label, replayed, difference):
    """Catches a wrong label that passes for confirmed, and a difference that is reported of the wrong result."""
    correct, as_asked = label
    outcome = Outcome(correct=replayed[0], margin=-2.0, response=None, layer_executions=2, correct_as_asked=replayed[1])
    row = ReplayedLabel(program=PROGRAM, correct=correct, as_asked=as_asked, margin=1.0)
    found = compare("q", row, outcome)
    assert (found and (found.correct, found.as_asked)) == difference
    assert found is None or (found.margin, found.replayed_margin) == (1.0, -2.0)

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
    outcome = Outcome(
        correct=replayed[0],
        reason="tie",
        margin=-2.0,
        response=None,
        layer_executions=2,
        correct_as_asked=replayed[1],
    )
    row = ReplayedLabel(program=PROGRAM, correct=correct, as_asked=as_asked, margin=1.0)
    found = compare("q", row, outcome)
    assert (found and (found.correct, found.as_asked)) == difference
    assert found is None or (found.margin, found.replayed_margin) == (1.0, -2.0)


@pytest.mark.parametrize(
    ("kept", "replayed", "same"),
    [
        (r"so it is \boxed{3}", r"so it is \boxed{3}", True),
        (r"so it is \boxed{\frac{1}{2}} and more", r"so it is \boxed{\frac{1}{2}}", True),  # a later stop, then
        (r"\boxed{answer}", r"\boxed{answer}, or \boxed{3}", True),
        ("so it is 3", "so it is 4", False),
        (None, "3", False),
        ("3", None, False),
        ("", "3", False),
    ],
)
def test_a_label_that_the_scoring_alone_changes_is_told_apart(kept, replayed, same):
    """Catches a change of the grader that is taken for a model that answers otherwise, and the other way round."""
    outcome = Outcome(correct=False, reason="cut", margin=-1.0, response=replayed, layer_executions=2)
    row = ReplayedLabel(program=PROGRAM, correct=True, as_asked=None, margin=1.0, response=kept)
    found = compare("q", row, outcome, solutions=True)
    assert found is not None and (found.same_answer, found.reason) == (same, "cut")


def test_a_short_answer_that_begins_another_is_another():
    """Catches an answer of another model, 42 for 4, that is reported as the same answer."""
    outcome = Outcome(correct=False, reason="unequal", margin=-1.0, response="42", layer_executions=2)
    for response, same in (("4", False), ("42", True)):
        row = ReplayedLabel(program=PROGRAM, correct=True, as_asked=None, margin=1.0, response=response)
        found = compare("q", row, outcome)
        assert found is not None and found.same_answer == same

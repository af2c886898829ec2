"""Mathematical equality, and a grader that neither hangs nor dies with what it is given."""

from __future__ import annotations

import time

import pytest

from pipeline.tasks.math_grader import MathGrader

#: A comparison that never ends, or takes all memory, unless it is killed.
HANGS = r"\boxed{9^{9^{9^{9^{9}}}}}"


@pytest.fixture(scope="module")
def grader():
    """One grader's process for the whole file."""
    grader = MathGrader(seconds=30)
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        (r"so \boxed{42}", "42"),
        (r"\boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{0.5}", r"\frac{1}{2}"),
        (r"\boxed{1,234}", "1234"),
        (r"\boxed{x^2 + 2x + 1}", "(x+1)^2"),
        (r"first \boxed{3}, or rather \boxed{4}", "4"),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
        ("The answer is $7$.", "7"),
    ],
)
def test_equal_forms_are_equal(grader, response, reference):
    """Catches a right answer that counts as wrong because it is written in another way."""
    assert grader.equal(response, reference)


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        (r"\boxed{41}", "42"),
        (r"\boxed{4}, and so \boxed{42} is wrong, \boxed{5}", "42"),
        (r"\boxed{-3}", "3"),
        (r"\boxed{0.33}", r"\frac{1}{3}"),
        (r"\boxed{}", "3"),
        ("", "3"),
        ("I do not know.\n\n", "3"),
        ('"]\x00\u2028\ud800 é', "3"),
    ],
)
def test_other_answers_are_not(grader, response, reference):
    """Catches a wrong, an empty or a garbled answer that counts as right, or breaks the pipe."""
    assert not grader.equal(response, reference)


def test_the_reference_to_the_letter_needs_no_process():
    """Catches a process, and its seconds, spent where the text alone tells."""
    grader = MathGrader()
    assert grader.equal("thus \\boxed{\\frac{3}{4}}\n", r"\frac{3}{4}")
    assert grader._process is None


def test_a_comparison_that_hangs_is_cut_off(grader, monkeypatch):
    """Catches a run that one answer stops for ever, or a grader that is lost with it."""
    assert grader.equal(r"\boxed{2}", "2.0")
    with monkeypatch.context() as hasty:
        hasty.setattr(grader, "seconds", 1)
        started = time.monotonic()
        assert not grader.equal(HANGS, "1")
        assert time.monotonic() - started < 1 + 4
    assert grader.equal(r"\boxed{3}", "3.0")
    assert not grader.equal(r"\boxed{3}", "4.0")


def test_a_late_verdict_is_not_the_next_answer(grader, monkeypatch):
    """Catches an answer that arrives after its time was up and is taken for the next comparison's."""
    assert grader.equal(r"\boxed{2}", "2.0")
    with monkeypatch.context() as hasty:
        hasty.setattr(grader, "seconds", 0.2)
        assert not grader.equal(HANGS, "5.0")
    assert not grader.equal(r"\boxed{5}", "6.0")
    assert grader.equal(r"\boxed{6}", "6.0")


def test_a_dead_process_is_replaced(grader):
    """Catches right answers that count as wrong because the grader's process was killed meanwhile."""
    assert grader.equal(r"\boxed{2}", "2.0")
    first = grader._process
    first.kill()
    first.wait()
    assert grader.equal(r"\boxed{7}", "7.0")
    assert grader._process.pid != first.pid


def test_closing_ends_the_process(grader):
    """Catches processes that pile up, and a closed grader that cannot be used again."""
    assert grader.equal(r"\boxed{8}", "8.0")
    process = grader._process
    grader.close()
    grader.close()
    assert process.poll() is not None
    assert grader.equal(r"\boxed{9}", "9.0")


def test_a_grader_that_does_not_start_says_so(monkeypatch):
    """Catches every answer counting as wrong because math-verify is missing."""
    monkeypatch.setattr("pipeline.tasks.math_grader.sys.executable", "/bin/true")
    with pytest.raises(RuntimeError, match="math-verify"):
        MathGrader().equal(r"\boxed{1}", "1.0")

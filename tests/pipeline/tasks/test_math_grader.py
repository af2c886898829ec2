"""Mathematical equality, and a grader that neither hangs nor dies with what it is given."""

from __future__ import annotations

import time

import pytest

from pipeline.tasks.scoring.math_grader import MathGrader

#: A comparison that never ends, or takes all memory, unless it is killed.
HANGS = r"9^{9^{9^{9^{9}}}}"


@pytest.fixture(scope="module")
def grader():
    """One grader's process for the whole file."""
    grader = MathGrader(seconds=30)
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\frac{1}{2}", "0.5"),
        ("0.5", r"\frac{1}{2}"),
        ("2.50", r"\frac{5}{2}"),
        ("1,234", "1234"),
        (r"1\,000", "1000"),
        (r"1{,}000", "1000"),
        (r"1\,000\,000", "10^6"),
        ("1 000", "1000"),
        ("1e3", "1000"),
        ("2.5e-3", "0.0025"),
        ("x^2 + 2x + 1", "(x+1)^2"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        (r"\text{18 dollars}", "18"),
        (r"18\text{ dollars}", r"\$18"),
        ("18 dollars", "18"),
        ("18 apples", "18"),
        ("5 km", "5"),
        (r"5\text{ km}", "5 kilometers"),
        (r"3\text{ m}^2", "3 square meters"),
        (r"\frac{1}{2}\text{ hour}", "0.5 hours"),
        ("11_7", "11_{7}"),
        ("11", "11_7"),
        (r"1a_{\text{sixteen}}", r"1A_{\text{sixteen}}"),
        (r"50\%", "0.5"),
        (r"\frac{1}{2006!}", "1/2006!"),
        ("(1,2)", "(1, 2)"),
        ("2xy", "2yx"),
        ("6 x y z", "6xyz"),
        ("5 million", "5000000"),
        ("60 mph", "60 miles per hour"),
        ("60 km/h", "60 kilometers per hour"),
        (r"\$5", "5 dollars"),
        (r"\$1,234.50", "1234.5"),
        ("5 kgs", "5 kg"),
        ("5 years old", "5 years"),
        ("12 inches tall", "12 inches"),
        ("100 degrees Celsius", "100 degrees"),
        ("5_{10}", "5"),
        (r"1101_{\text{two}}", "1101_2"),
        (r"3\mathrm{cm}", "3 cm"),
        ("3 cups of flour", "3"),
    ],
)
def test_equal_forms_are_equal(grader, answer, reference):
    """Catches a right answer that counts as wrong because it is written in another way."""
    assert grader.compare(answer, reference) == "equal"


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("41", "42"),
        ("-3", "3"),
        ("0.33", r"\frac{1}{3}"),
        ("0.3333333", r"\frac{1}{3}"),
        ("1.4142136", r"\sqrt{2}"),
        ("1/2006!", "1/2004!"),
        (r"10^{-9}", r"2 \cdot 10^{-9}"),
        ("1e-9", "2e-9"),
        ("5 km", "5 cm"),
        (r"5\text{ km}", "5 miles"),
        ("3 square meters", "3 cubic meters"),
        ("3 hours", r"3\text{ min}"),
        ("11_7", "11_6"),
        ("1011_2", "11"),
        ("11", "1011_2"),
        ("2xy", "2"),
        ("2xyz", "2"),
        ("3x", "3"),
        ("4s^2", "4"),
        ("3 theta", "3"),
        (r"3\mathrm{i}", "3"),
        ("5 million", "5"),
        ("3 dozen", "3"),
        (r"7\text{ a.m.}", r"7\text{ p.m.}"),
        ("60 km/h", "60 mph"),
        ("60 miles per hour", "60 km/h"),
        ("5 euros", "5 dollars"),
        (r"\$5", "5 cents"),
        ("5 kgs", "5 lbs"),
        ("18 apples", "18 eggs"),
        ("(0.3333333, 2)", r"(\frac{1}{3}, 2)"),
        ("x = 0.3333333", r"x = \frac{1}{3}"),
        (r"2 \sin x", "2"),
    ],
)
def test_other_answers_are_unequal(grader, answer, reference):
    """Catches another answer that counts as right: by rounding, without its unit or base, or without its variable."""
    assert grader.compare(answer, reference) == "unequal"


@pytest.mark.parametrize("answer", ["", '"]\x00\u2028\ud800 é', HANGS])
def test_what_cannot_be_read_is_ungradable(grader, answer, monkeypatch):
    """Catches an empty or a garbled answer that counts as right, breaks the pipe, or is taken for a wrong number."""
    monkeypatch.setattr(grader, "seconds", 1 if answer == HANGS else 30)
    assert grader.compare(answer, "3") in ("ungradable", "unequal")


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
        assert not grader.equal(f"\\boxed{{{HANGS}}}", "1")
        assert time.monotonic() - started < 1 + 4
    assert grader.equal(r"\boxed{3}", "3.0")
    assert not grader.equal(r"\boxed{3}", "4.0")


def test_a_late_verdict_is_not_the_next_answer(grader, monkeypatch):
    """Catches an answer that arrives after its time was up and is taken for the next comparison's."""
    assert grader.equal(r"\boxed{2}", "2.0")
    with monkeypatch.context() as hasty:
        hasty.setattr(grader, "seconds", 0.2)
        assert not grader.equal(f"\\boxed{{{HANGS}}}", "5.0")
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
    monkeypatch.setattr("pipeline.tasks.scoring.math_grader.sys.executable", "/bin/true")
    with pytest.raises(RuntimeError, match="math-verify"):
        MathGrader().equal(r"\boxed{1}", "1.0")

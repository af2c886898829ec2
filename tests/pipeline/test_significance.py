"""Intervals and tests, against what is known of them."""

from __future__ import annotations

import random

import pytest
from scipy.stats import binom

from pipeline.significance import bootstrap_interval, mcnemar
from router.evaluation.evaluate import random_program


def test_mcnemar_counts_the_questions_that_turned():
    """Catches a test on the accuracies, which forgets that the questions are the same."""
    base = [True] * 50 + [False] * 30 + [True] * 10 + [False] * 2
    other = [True] * 50 + [False] * 30 + [False] * 10 + [True] * 2
    lost, won, p_value = mcnemar(base, other)
    assert (lost, won) == (10, 2)
    assert p_value == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(base, base) == (0, 0, 1.0)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Catches an interval that is too narrow, or that is not of the accuracy."""
    rng = random.Random(0)
    held = 0
    for seed in range(200):
        low, high = bootstrap_interval([rng.random() < 0.7 for _ in range(150)], seed=seed)
        held += low <= 0.7 <= high
    assert 180 <= held <= 199
    assert bootstrap_interval([True] * 10) == (1.0, 1.0)


def test_random_programs_have_the_length_that_was_asked_for():
    """Catches a comparison with random programs that are longer, shorter, or all the same."""
    rng = random.Random(1)
    for length in (1, 7, 10, 13, 20):
        programs = [random_program(10, length, rng) for _ in range(20)]
        assert {len(program) for program in programs} == {length}
        assert len(set(programs)) > 1 or length in (10, 20)

"""Budgets are kept whatever the routers say, and no better plan is missed where the future is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.special

from router.heads.per_layer.budget import BudgetPlanner, planner_for_average, price_for_average


def random_log_probs(rows, layers, seed, spread=3.0):
    logits = spread * np.random.default_rng(seed).normal(size=(rows, layers, 3))
    return scipy.special.log_softmax(logits, axis=-1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 2, 5, 9, 10, 13, 20])
def test_no_sequence_exceeds_its_limit_and_none_is_empty(seed, limit):
    """Catches a budget that is kept on average only, or by leaving out whatever comes last."""
    policy = BudgetPlanner(random_log_probs(20, 10, seed), limit=limit)
    lengths = policy.decide_all(random_log_probs(200, 10, seed + 100)).sum(1)
    assert lengths.max() <= limit
    assert lengths.min() >= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_known_future_is_planned_for_exactly(seed):
    """Catches a plan that is off by a layer: against the best of all programs, tried one by one."""
    sample = random_log_probs(1, 5, seed)
    for limit in (1, 3, 4, 7, None):
        counts = BudgetPlanner(sample, limit=limit).decide_all(sample)[0]
        allowed = [
            np.array(program) for program in itertools.product(range(3), repeat=5) if 1 <= sum(program) <= (limit or 10)
        ]
        worth = [float(sample[0, np.arange(5), program].sum()) for program in allowed]
        assert np.array_equal(counts, allowed[worth.index(max(worth))]), (limit, counts)


def test_without_a_limit_the_likeliest_is_taken():
    """Catches a plan that interferes where nothing binds."""
    logits = random_log_probs(50, 8, 1)
    likeliest = logits.argmax(-1)
    assert np.array_equal(BudgetPlanner(random_log_probs(9, 8, 2)).decide_all(logits), likeliest)
    loose = BudgetPlanner(random_log_probs(9, 8, 2), limit=16).decide_all(logits)
    assert np.array_equal(loose, likeliest)


def test_layers_go_where_they_are_worth_most():
    """Catches a bound that skips at random: the layers whose routers insist stay."""
    logits = np.zeros((1, 6, 3))
    logits[0, :, 1] = [9.0, 1.0, 9.0, 1.0, 9.0, 1.0]
    logits[0, :, 2] = -20.0
    counts = BudgetPlanner(scipy.special.log_softmax(logits, axis=-1), limit=3).decide_all(logits)[0]
    assert counts.tolist() == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("average", [0.2, 0.5, 0.8, 1.0, 1.4])
def test_a_price_gives_the_average_that_was_asked_for(average):
    """Catches a price of the wrong sign, and one that is found for other prompts than are run."""
    sample = random_log_probs(400, 10, 4)
    price = price_for_average(sample, average)
    mean = float(BudgetPlanner(sample, price=price).decide_all(sample).sum(1).mean())
    assert 10 * average - 0.15 <= mean <= 10 * average
    other = float(BudgetPlanner(sample, price=price).decide_all(random_log_probs(400, 10, 5)).sum(1).mean())
    assert abs(other - 10 * average) < 0.5
    bounded = (
        BudgetPlanner(sample, limit=9, price=price_for_average(sample, average, limit=9)).decide_all(sample).sum(1)
    )
    assert bounded.max() <= 9


@pytest.mark.parametrize("average", [0.3, 0.5, 0.8, 0.95])
def test_an_average_is_kept_where_layers_say_the_same(average):
    """Catches a price that moves all settled layers at once: one layer of ten in place of eight."""
    sample = random_log_probs(50, 10, 6)
    sample[:, 2:] = np.log([0.01, 0.98, 0.01])
    mean = planner_for_average(sample, average).decide_all(sample).sum(1).mean()
    assert 10 * average - 1 <= mean <= 10 * average
    assert planner_for_average(sample, average, limit=4).decide_all(sample).sum(1).max() <= 4


def test_a_limit_below_one_layer_is_refused():
    """Catches an empty program, which no model can run."""
    with pytest.raises(ValueError, match="at least one layer"):
        BudgetPlanner(random_log_probs(1, 4, 0), limit=0)

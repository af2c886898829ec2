"""Intervals of accuracies, and a test of their differences, for answers that are right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

_RESAMPLES = 10_000


def bootstrap_interval(right: Sequence[bool], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of an accuracy.

    Args:
        right: Whether each answer is right.
        level: Level of confidence.
        seed: Seed of the resamples.
    """
    # To resample n answers, a share of which is right, is to draw from a binomial distribution.
    draws = np.random.default_rng(seed).binomial(len(right), np.mean(right), size=_RESAMPLES) / len(right)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_of_shares(shares: Sequence[float], *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean of shares, of which there are few different ones.

    Args:
        shares: The share of each example, such as the share of its renderings that are answered right.
        level: Level of confidence.
        seed: Seed of the resamples.
    """
    # To resample n examples is to draw the numbers of the different shares from a multinomial distribution.
    different, numbers = np.unique(np.asarray(shares, dtype=np.float64), return_counts=True)
    number = len(shares)
    draws = np.random.default_rng(seed).multinomial(number, numbers / number, size=_RESAMPLES) @ different / number
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(base: Sequence[bool], other: Sequence[bool]) -> tuple[int, int, float]:
    """McNemar's exact test on the same examples (1947).

    Returns:
        The number of examples that only the base gets right, the number that only the other gets right, and the
        two-sided p-value of so uneven a split under the hypothesis that both are equally good.
    """
    lost = sum(b and not o for b, o in zip(base, other, strict=True))
    won = sum(o and not b for b, o in zip(base, other, strict=True))
    p_value = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return lost, won, p_value


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for the number of tests (Holm, Scandinavian Journal of Statistics 6, 1979).

    Where nothing differs, the chance that any corrected p-value is below 5 % is at most 5 %.

    Returns:
        The corrected p-values, in the order of the given ones.
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, one in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[one]))
        corrected[one] = highest
    return corrected

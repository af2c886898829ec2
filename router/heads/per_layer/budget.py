"""From the routers' logits to how often each layer runs: the likeliest program, or the likeliest within a budget.

A sequence's layers are decided one after the other while its prompt is read, so a bound on their number must
be kept without knowing the logits of later routers. A dynamic program keeps it: with r layers left to spend at layer l,
the value of a choice c is its own log-probability plus the value of the remaining layers with r − c left,

    V_l(r) = E[ max_c  log p_l(c) − price·c + V_{l+1}(r − c) ],    V_L(r) = 0,   never below r = 0,

where the mean is over the routers' log-probabilities on held-out prompts, layer by layer. The bound holds for every
sequence, whatever the logits are.

An average over sequences is kept by a price for every layer that runs, found on the same prompts.

Shapes: B rows, L layers, N held-out prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from router.labels.labelled import NUM_CLASSES

Array = np.ndarray[Any, Any]

#: Prices tried, in nats (of a selector in right answers an example): beyond these all layers are skipped, or repeated.
_MOST_EXTREME_PRICE = 32.0
_BISECTIONS = 24


class BudgetPlanner:
    """Decides how often layers run, from the routers' logits and the layers that are left.

    Args:
        sample: The routers' log-probabilities on held-out prompts, ``[N, L, 3]``.
        limit: Most layers that a sequence may run; None for no bound.
        price: Nats that a layer costs.

    Raises:
        ValueError: The limit is below 1.
    """

    def __init__(self, sample: Array, *, limit: int | None = None, price: float = 0.0) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a program has at least one layer, got a limit of {limit}")
        self.num_layers: int = sample.shape[1]
        self.limit = limit
        self.price = price
        most = self.num_layers * (NUM_CLASSES - 1)
        # Without a limit the allowance is one that no program can exceed.
        self._allowance = most if limit is None else min(limit, most)
        self._cost = price * np.arange(NUM_CLASSES)
        self._value = None if limit is None or limit >= most else self._plan(sample)

    @property
    def bounded(self) -> bool:
        """Whether a decision depends on those before it."""
        return self._value is not None

    def likeliest(self, logits: Array) -> Array:
        """The counts of layers without a budget: logits ``[…, 3]`` to counts ``[…]``."""
        counts: Array = (logits - self._cost).argmax(-1)
        return counts

    def decide(self, layer: int, logits: Array, spent: Array) -> Array:
        """The count of one layer in each row.

        Args:
            layer: Index of the layer.
            logits: Logits of its router, ``[B, 3]``; a constant on all three of a row changes nothing.
            spent: Layers that each row's program has so far, ``[B]``.

        Returns:
            Counts ``[B]``, 0 to 2.
        """
        # A prompt waits for this at every layer: no operation that changes nothing.
        value = logits - self._cost if self.price else logits
        if self._value is not None:
            value = value + _value_after(self._value[layer + 1], self._allowance - spent)
        if layer == self.num_layers - 1 and not spent.all():
            # No program is empty: the last layer runs where no other layer did.
            value = np.where(((spent == 0)[:, None] & [True, False, False]), -math.inf, value)
        counts: Array = value.argmax(1)
        return counts

    def decide_all(self, logits: Array) -> Array:
        """Counts ``[B, L]`` from the logits of all layers ``[B, L, 3]``, as if no decision changed a later logit."""
        counts = np.zeros(logits.shape[:2], dtype=np.int64)
        spent = np.zeros(len(logits), dtype=np.int64)
        for layer in range(self.num_layers):
            counts[:, layer] = self.decide(layer, logits[:, layer], spent)
            spent += counts[:, layer]
        return counts

    def _plan(self, sample: Array) -> Array:
        """The value V of the layers from l on with r left to spend, ``[L + 1, NUM_CLASSES - 1 + allowance + 1]``.

        The first columns stand for having spent too much: minus infinity.
        """
        beyond = NUM_CLASSES - 1
        left = np.arange(self._allowance + 1)
        value = np.zeros((self.num_layers + 1, beyond + len(left)))
        value[:, :beyond] = -math.inf
        for layer in reversed(range(self.num_layers)):
            # [N, 1, 3] and [r, 3]
            choices = (sample[:, layer] - self._cost)[:, None] + _value_after(value[layer + 1], left)
            value[layer, beyond:] = choices.max(-1).mean(0)
        return value


#: Columns of a row of ``_plan`` after each choice, relative to the allowance before it.
_COLUMNS = NUM_CLASSES - 1 - np.arange(NUM_CLASSES)


def _value_after(value: Array, left: Array) -> Array:
    """The value of the remaining layers after each choice: a row of ``_plan`` and allowances ``[B]`` to ``[B, 3]``."""
    after: Array = value[left[:, None] + _COLUMNS]
    return after


def price_for_average(sample: Array, average: float, *, limit: int | None = None) -> float:
    """The price at which held-out prompts run a given number of layers on average.

    Args:
        sample: Log-probabilities on those prompts, ``[N, L, 3]``.
        average: Mean layers, as a fraction of L.
        limit: A limit for every sequence that is kept too; see ``BudgetPlanner``.

    Returns:
        Nats a layer; the mean is at most ``average``, as near as prices come to it. 0 where the limit implies it.
    """
    wanted = average * sample.shape[1] + 1e-9
    if limit is not None and limit <= wanted:
        return 0.0
    return price_where(
        lambda price: float(BudgetPlanner(sample, limit=limit, price=price).decide_all(sample).sum(1).mean()) <= wanted
    )


def price_where(cheap_enough: Callable[[float], bool]) -> float:
    """The lowest price of a layer at which ``cheap_enough`` holds, by bisection."""
    low, high = -_MOST_EXTREME_PRICE, _MOST_EXTREME_PRICE
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if cheap_enough(middle):
            high = middle
        else:
            low = middle
    return high


def planner_for_average(sample: Array, average: float, *, limit: int | None = None) -> BudgetPlanner:
    """A planner whose mean number of layers is at most ``average``, and as near to it as possible.

    A price moves all layers with equal logits at once, so that the mean may jump far below ``average``; a limit for
    every sequence then comes nearer.

    Args:
        sample: Log-probabilities on held-out prompts, ``[N, L, 3]``.
        average: Mean layers, as a fraction of L.
        limit: A limit for every sequence that is kept too; see ``BudgetPlanner``.
    """
    priced = BudgetPlanner(sample, limit=limit, price=price_for_average(sample, average, limit=limit))
    bound = max(1, int(average * sample.shape[1] + 1e-9))
    bounded = BudgetPlanner(sample, limit=bound if limit is None else min(bound, limit))
    return max(priced, bounded, key=lambda planner: float(planner.decide_all(sample).sum(1).mean()))

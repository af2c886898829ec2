"""The choice of a menu among the programs that finished the race: the front, and programs that others gain from.

The *front* has the best static program of each length, as long as a longer one is right on more examples. Programs that
are good on some examples alone come next: a greedy cover, by what a selector would gain from each. The selector is the
simplest there is, ridge regression from the base model's hidden states (``router.menu.ridge``), whose prediction for an
example leaves out the example's own outcomes. So no program is taken because it is right somewhere by luck. Where no
further gain is measured, the menu is filled with those that promise most: programs that suit a few examples only show
on more examples than the race has, and the matrix of the menu has them all.

Shapes: N examples, M programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.program import LayerProgram
from router.menu.ridge import leave_one_out

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class SelectorComplements:
    """Chooses programs by what the simplest selector would gain from them, beside others.

    Attributes:
        summaries: Summaries of the base model's hidden states on the prompts, ``[N, …]``, in the order of the race.
        layer_price: Price of a layer, in right answers an example.
    """

    summaries: Array
    layer_price: float

    def __call__(
        self, right: Array, programs: Sequence[LayerProgram], *, given: Sequence[int], number: int
    ) -> list[int]:
        """Places of programs, the given ones first; see ``router.menu.racing.Complements``."""
        predicted = leave_one_out(self.summaries[: len(right)], right - right[:, given[:1]])
        return cover(right, predicted, programs, given=given, size=number, layer_price=self.layer_price)


def front(right: Array, programs: Sequence[LayerProgram]) -> list[int]:
    """The Pareto front of length against right answers, from the shortest program to the best.

    Args:
        right: Right answers, ``[N, M]``.
        programs: The programs.

    Returns:
        Places of programs: each is right on more examples than every shorter program.
    """
    means = right.mean(0)
    order = sorted(range(len(programs)), key=lambda one: (len(programs[one]), -means[one], one))
    found: list[int] = []
    for one in order:
        if not found or means[one] > means[found[-1]]:
            found.append(one)
    return found


def cover(
    right: Array,
    predicted: Array,
    programs: Sequence[LayerProgram],
    *,
    given: Sequence[int],
    size: int,
    layer_price: float,
) -> list[int]:
    """Add programs to a menu, each time the one by which the menu's selector gains most.

    Args:
        right: Right answers, ``[N, M]``.
        predicted: Predicted gains over one program for all, each from other examples alone, ``[N, M]``.
        programs: The programs.
        given: Places of the programs that the menu has.
        size: Programs of the menu.
        layer_price: Price of a layer, in right answers an example.

    Returns:
        Places of the menu's programs, the given ones first, then those with a measured gain, then those with a
        predicted one; fewer than ``size`` where no other one promises anything.
    """
    saved = layer_price * np.array([program.saved_layers for program in programs])
    worth, values = predicted + saved, right + saved
    chosen = list(given)
    examples = np.arange(len(right))
    best = np.array([chosen[one] for one in worth[:, chosen].argmax(1)])
    while len(chosen) < size:
        others = [one for one in range(len(programs)) if one not in chosen]
        if not others:
            break
        kept, kept_worth = values[examples, best], worth[examples, best]
        # What each program would add, on the examples where the selector would prefer it.
        preferred = worth[:, others] > kept_worth[:, None]
        gains = np.where(preferred, values[:, others] - kept[:, None], 0.0).mean(0)
        if gains.max() <= 0:
            gains = np.where(preferred, worth[:, others] - kept_worth[:, None], 0.0).mean(0)
        gain = int(gains.argmax())
        if gains[gain] <= 0:
            break
        chosen.append(others[gain])
        best = np.where(preferred[:, gain], others[gain], best)
    return chosen

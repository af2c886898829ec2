"""Verdicts on the programs of an example: their ranking, and their Pareto set of correctness and margin against length.

CoLa (arXiv 2507.07996, §3) returns such a set instead of one program: a user with layers to spend takes a longer
program of a larger margin from it, any other user a shorter one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.program import LayerProgram

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of one program on an example.

    Attributes:
        program: The program.
        correct: Whether the program's answer is right.
        margin: Distance of the logits from the opposite result; positive where the answer is right.
    """

    program: LayerProgram
    correct: bool
    margin: float


def ranked(verdicts: Iterable[Verdict], budget: float) -> list[Verdict]:
    """The right programs within a budget, best first: the shortest, and among equally long ones the largest margin."""
    right = (v for v in verdicts if v.correct and v.program.within(budget))
    return sorted(right, key=lambda v: (len(v.program), -v.margin, v.program.layers))


def pareto_verdicts(verdicts: Iterable[Verdict], budget: float) -> list[Verdict]:
    """The Pareto set over (length, correctness, margin) of the programs within a budget, shortest first.

    A right program is better than a wrong one; between two right or two wrong ones, the larger margin is better.
    """
    # Sorted by the layers first, so that the order in which equals were evaluated decides nothing.
    within = sorted((v for v in verdicts if v.program.within(budget)), key=lambda v: v.program.layers)
    worth = {v.program: (v.correct, -math.inf if math.isnan(v.margin) else v.margin) for v in within}
    return pareto_set(within, length=lambda v: len(v.program), worth=lambda v: worth[v.program])


def pareto_set(items: Iterable[Item], *, length: Callable[[Item], int], worth: Callable[[Item], Any]) -> list[Item]:
    """The items that are worth more than every other item that is as short or shorter.

    Args:
        items: Programs with their verdicts.
        length: Length of an item.
        worth: Worth of an item, such as ``(correct, margin)``; any value that compares.

    Returns:
        The set, shortest first. Of items that are equal in both, only the first is in the set.
    """
    front: list[Item] = []
    # Of one length, the item worth most comes first; sorting keeps the order of equals.
    by_worth = sorted(items, key=worth, reverse=True)
    for item in sorted(by_worth, key=length):
        if not front or worth(item) > worth(front[-1]):
            front.append(item)
    return front

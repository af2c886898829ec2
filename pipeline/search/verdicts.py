"""The programs of a question that no other one beats: right first, then sure, against length.

CoLa (arXiv 2507.07996, §3) returns such a set in place of one program: whoever has layers to spend takes a longer
and surer program from it, whoever has not a shorter one.
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
    """What running one program on the question said.

    Attributes:
        program: The program.
        correct: Whether its answer is right.
        margin: How far the answer is from turning; positive where it is right.
    """

    program: LayerProgram
    correct: bool
    margin: float


def ranked(verdicts: Iterable[Verdict], budget: float) -> list[Verdict]:
    """The right programs within a budget, best first: shortest, then by the largest margin."""
    right = (v for v in verdicts if v.correct and v.program.within(budget))
    return sorted(right, key=lambda v: (len(v.program), -v.margin, v.program.layers))


def unbeaten(verdicts: Iterable[Verdict], budget: float) -> list[Verdict]:
    """The programs within a budget, right or wrong, that none as short or shorter beats; shortest first.

    A right program beats a wrong one, of two alike the one of the larger margin.
    """
    # By the layers first, so that the order in which equals were tried decides nothing.
    within = sorted((v for v in verdicts if v.program.within(budget)), key=lambda v: v.program.layers)
    worth = {v.program: (v.correct, -math.inf if math.isnan(v.margin) else v.margin) for v in within}
    return pareto_set(within, length=lambda v: len(v.program), worth=lambda v: worth[v.program])


def pareto_set(items: Iterable[Item], *, length: Callable[[Item], int], worth: Callable[[Item], Any]) -> list[Item]:
    """Those items that are worth more than every one that is as short or shorter.

    Args:
        items: Programs with their verdicts.
        length: How long one is.
        worth: What it is worth, such as ``(correct, margin)``; anything that compares.

    Returns:
        The set, shortest first. Of items that are alike in both the first one stands for all.
    """
    front: list[Item] = []
    # Of one length the worthiest comes first; sorting keeps the order of equals.
    by_worth = sorted(items, key=worth, reverse=True)
    for item in sorted(by_worth, key=length):
        if not front or worth(item) > worth(front[-1]):
            front.append(item)
    return front

"""The programs of a question that no other one beats: right first, then sure, against length.

CoLa (arXiv 2507.07996, §3) returns such a set in place of one program: whoever has layers to spend takes a longer
and surer program from it, whoever has not a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")


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

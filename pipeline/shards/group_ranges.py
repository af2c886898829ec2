"""How the examples of a run are cut into work groups: numbers alone, which every reader and writer agrees on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def group_ranges(num_examples: int, group_size: int, extended_at: Sequence[int] = ()) -> list[range]:
    """The places of each work group's examples, by the group's number.

    What is committed stays as it is when a run is extended: the first new example begins a new group, and the last
    group before it may be a smaller one.

    Args:
        num_examples: Examples of the run.
        group_size: Most examples in a group.
        extended_at: Numbers of examples that the run had when it was extended, in ascending order.
    """
    bounds = [0, *(number for number in extended_at if number < num_examples), num_examples]
    return [
        range(start, min(start + group_size, end))
        for begin, end in pairwise(bounds)
        for start in range(begin, end, group_size)
    ]

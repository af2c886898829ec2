"""Action spaces: the edits that lead from one layer program to its neighbours.

Each space is a plain function from a program and a length cap to the neighbours' programs. No
neighbour equals the program it came from, and none appears twice: two edits that give the same
program (leaving out either copy of a repeated layer, say) are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from pipeline.program import LayerProgram

ActionSpace = Callable[[LayerProgram, int], list[LayerProgram]]

DRLLM_MAX_SKIP = 2
COLA_MAX_SPAN = 4
COLA_MAX_TIMES = 4


def drllm(program: LayerProgram, max_length: int) -> list[LayerProgram]:
    """Dr.LLM's edits: skip 1 or 2 consecutive layers, or repeat one layer once (2510.12773, §3.1).

    A layer is edited at most once, so every program has counts in {0, 1, 2} and no edit undoes
    another.
    """
    counts = program.counts
    if counts is None or max(counts) > 2:
        raise ValueError(f"program {program} is not one of counts in {{0, 1, 2}}")
    untouched = [counts[layer] == 1 for layer in program]

    def edits() -> Iterator[LayerProgram]:
        for span in range(1, DRLLM_MAX_SKIP + 1):
            for position in range(len(program) - span + 1):
                if span < len(program) and all(untouched[position : position + span]):
                    yield program.skip(position, span)
        if len(program) < max_length:
            for position in range(len(program)):
                if untouched[position]:
                    yield program.repeat(position)

    return list(dict.fromkeys(edits()))


def cola(program: LayerProgram, max_length: int) -> list[LayerProgram]:
    """CoLa's edits: skip k layers, or repeat a block of k layers r times (2507.07996, §3).

    k and r run over 1…4 on the current program, so edits nest: a block that was repeated can be
    repeated or cut again.
    """

    def edits() -> Iterator[LayerProgram]:
        for span in range(1, COLA_MAX_SPAN + 1):
            for position in range(len(program) - span + 1):
                if span < len(program):
                    yield program.skip(position, span)
        for span, times in product(range(1, COLA_MAX_SPAN + 1), range(1, COLA_MAX_TIMES + 1)):
            if len(program) + span * times <= max_length:
                for position in range(len(program) - span + 1):
                    yield program.repeat(position, span, times)

    return list(dict.fromkeys(edits()))


ACTION_SPACES: dict[str, ActionSpace] = {"drllm": drllm, "cola": cola}

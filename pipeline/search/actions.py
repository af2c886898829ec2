"""Edits: the steps that lead from one layer program to its neighbours.

Each action space has a plain function from a program and the longest length allowed to edits. No edit leads to the
program that it came from, and no two lead to the same one: leaving out either copy of a repeated layer is one edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

from pipeline.program import LayerProgram

DRLLM_MAX_SKIP = 2
COLA_MAX_SPAN = 4
COLA_MAX_TIMES = 4


class Edit(NamedTuple):
    """One step from a program to a neighbour.

    Attributes:
        label: The edit and its layers (``skip 5-6``, ``repeat 3``), the same in every program.
        program: The neighbour that it leads to.
    """

    label: str
    program: LayerProgram


def drllm(program: LayerProgram, max_length: int) -> list[Edit]:
    """Dr.LLM's edits: skip 1 or 2 consecutive layers, or repeat one layer once (2510.12773, §3.1).

    A layer is edited at most once, so every program has counts in {0, 1, 2} and no edit undoes
    another.

    Raises:
        ValueError: The program has other counts.
    """
    counts = program.counts
    if counts is None or max(counts) > 2:
        raise ValueError(f"program {program} is not one of counts in {{0, 1, 2}}")
    unedited = [counts[layer] == 1 for layer in program]

    def edits() -> Iterator[Edit]:
        for span in range(1, DRLLM_MAX_SKIP + 1):
            for position in range(len(program) - span + 1):
                if span < len(program) and all(unedited[position : position + span]):
                    yield _skip(program, position, span)
        if len(program) < max_length:
            for position in range(len(program)):
                if unedited[position]:
                    yield _repeat(program, position, 1, 1)

    return _distinct(edits())


def cola(program: LayerProgram, max_length: int) -> list[Edit]:
    """CoLa's edits: skip k layers, or repeat a block of k layers r times (2507.07996, §3).

    k and r run over 1…4 on the current program, so edits nest: a block that was repeated can be
    repeated or cut again.
    """

    def edits() -> Iterator[Edit]:
        for span in range(1, COLA_MAX_SPAN + 1):
            for position in range(len(program) - span + 1):
                if span < len(program):
                    yield _skip(program, position, span)
        for span, times in product(range(1, COLA_MAX_SPAN + 1), range(1, COLA_MAX_TIMES + 1)):
            if len(program) + span * times <= max_length:
                for position in range(len(program) - span + 1):
                    yield _repeat(program, position, span, times)

    return _distinct(edits())


def _skip(program: LayerProgram, position: int, span: int) -> Edit:
    return Edit(f"skip {_block(program, position, span)}", program.skip(position, span))


def _repeat(program: LayerProgram, position: int, span: int, times: int) -> Edit:
    label = f"repeat {_block(program, position, span)}" + (f" x{times}" if times > 1 else "")
    return Edit(label, program.repeat(position, span, times))


def _block(program: LayerProgram, position: int, span: int) -> str:
    return str(LayerProgram(program.layers[position : position + span], program.num_layers))


def _distinct(edits: Iterable[Edit]) -> list[Edit]:
    """The edits without those that lead where an earlier one leads."""
    by_program: dict[LayerProgram, Edit] = {}
    for edit in edits:
        by_program.setdefault(edit.program, edit)
    return list(by_program.values())

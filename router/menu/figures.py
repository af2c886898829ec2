"""The figures of a menu's programs, on examples that no program was chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.program import LayerProgram
from pipeline.significance import holm, interval_of_shares, mcnemar
from router.menu.choice import front
from router.menu.menu import MenuProgram

Array = np.ndarray[Any, Any]


def menu_programs(programs: Sequence[LayerProgram], right: Array, *, num_held_out: int) -> list[MenuProgram]:
    """The programs of a menu with their figures.

    Args:
        programs: The programs, the identity program first.
        right: Right answers on all examples, ``[N, M]``; the last ones are held out.
        num_held_out: Number of held-out examples.

    Returns:
        The programs in their order. p-values are corrected for the number of programs (Holm 1979).
    """
    chosen_on, held_out = right[:-num_held_out], right[-num_held_out:]
    best_at_length = set(front(chosen_on, programs))
    # A test of paired answers needs answers that are right or wrong: right in every rendering.
    whole = held_out >= 1
    tests = [mcnemar(whole[:, 0].tolist(), whole[:, one].tolist()) for one in range(len(programs))]
    corrected = [1.0, *holm([p_value for _, _, p_value in tests[1:]])]
    figures = []
    for one, (program, (lost, won, _), p_value) in enumerate(zip(programs, tests, corrected, strict=True)):
        low, high = interval_of_shares(held_out[:, one].tolist())
        figures.append(
            MenuProgram(
                program=program,
                on_front=one in best_at_length,
                right=float(held_out[:, one].mean()),
                low=low,
                high=high,
                won=won,
                lost=lost,
                p_value=p_value,
            )
        )
    return figures

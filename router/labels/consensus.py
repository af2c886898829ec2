"""Consensus: of each question's right programs the one that is most like what the other questions settle on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from router.labels.labelled import NUM_CLASSES

if TYPE_CHECKING:
    pass
_ROUNDS = 50


def consensus(candidates: Sequence[Sequence[tuple[int, ...]]], layer_price: float) -> list[tuple[int, ...]]:
    """One of each question's programs, so that the choices are as like each other as can be, and short.

    The choices' class frequencies by layer and the choices themselves are found in turn, beginning with the first
    ones: each question takes its likeliest program under the frequencies, less the price of its layers, of equals
    the first, until nothing changes.
    """
    arrays = [np.array(programs) for programs in candidates]
    choices = [0] * len(arrays)
    layers = np.arange(arrays[0].shape[1])
    for _ in range(_ROUNDS):
        frequencies = np.full((len(layers), NUM_CLASSES), 0.5)  # a little of everything, so that nothing is impossible
        for programs, chosen in zip(arrays, choices):
            frequencies[layers, programs[chosen]] += 1
        log_p = np.log(frequencies / frequencies.sum(1, keepdims=True))
        worth = [log_p[layers, programs].sum(1) - layer_price * programs.sum(1) for programs in arrays]
        before, choices = choices, [int(of_question.argmax()) for of_question in worth]
        if choices == before:
            break
    return [tuple(map(int, programs[chosen])) for programs, chosen in zip(arrays, choices)]

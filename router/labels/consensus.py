"""Consensus: of each example's right programs the one that is most like the other examples' choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.labels.labelled import NUM_CLASSES

_ROUNDS = 50


def consensus(candidates: Sequence[Sequence[tuple[int, ...]]], consensus_price: float) -> list[tuple[int, ...]]:
    """One of each example's programs, so that the choices are as like each other as can be, and short.

    The choices' class frequencies by layer and the choices themselves are found in turn, beginning with the first
    programs: each example takes its likeliest program under the frequencies, less the price of its layers, of equals
    the first, until nothing changes.

    Args:
        candidates: The counts of each example's programs.
        consensus_price: Nats that a layer costs.
    """
    arrays = [np.array(programs) for programs in candidates]
    choices = [0] * len(arrays)
    layers = np.arange(arrays[0].shape[1])
    for _ in range(_ROUNDS):
        frequencies = np.full((len(layers), NUM_CLASSES), 0.5)  # add 0.5 to each class: nothing is impossible
        for programs, chosen in zip(arrays, choices):
            frequencies[layers, programs[chosen]] += 1
        log_p = np.log(frequencies / frequencies.sum(1, keepdims=True))
        values = [log_p[layers, programs].sum(1) - consensus_price * programs.sum(1) for programs in arrays]
        before, choices = choices, [int(of_example.argmax()) for of_example in values]
        if choices == before:
            break
    return [tuple(map(int, programs[chosen])) for programs, chosen in zip(arrays, choices)]

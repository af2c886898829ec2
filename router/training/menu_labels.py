"""Labels of per-layer routers from a menu's matrix: for each example the program to expect most of, and how surely.

A search says which programs are right on one example, often by luck. A matrix says it of every program on every
example, so that a regression can tell what examples have in common. The labels are its predictions, each example's own
outcomes left out: the program that a selector would choose, and how much others are to be expected beside it. What is
expected of held-out examples comes from the others alone.

Shapes: N examples, M programs, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.program import LayerProgram
from router.heads.selector.chances import fit_chances
from router.heads.selector.fit import LANDMARKS, best_caution
from router.labels.labelled import NUM_CLASSES, expressible_as_counts
from router.menu.ridge import principal_components

Array = np.ndarray[Any, Any]

#: A program whose value is higher by this much, in right answers an example, has e times the share.
_TEMPERATURE = 0.02


@dataclass(frozen=True, kw_only=True)
class MenuLabels:
    """The labels of a menu's examples.

    Attributes:
        programs: The programs that counts express, the identity program first; M of them.
        places: Their places in the menu, ``[M]``.
        chosen: The label of each example, as a place among the programs, ``[N]``.
        shares: What is expected of each count of each layer, ``[N, L, 3]``.
    """

    programs: list[LayerProgram]
    places: Array
    chosen: Array
    shares: Array


def menu_labels(
    inputs: Array, right: Array, programs: Sequence[LayerProgram], *, known: Array, layer_price: float
) -> MenuLabels:
    """Label every example of a menu.

    Args:
        inputs: Inputs of each example, ``[N, F]``.
        right: Right answers of the menu's programs, ``[N, M]``.
        programs: The programs, the identity program first.
        known: Whether an example is trained on, bool ``[N]``: no outcome of another one counts.
        layer_price: Price of a layer, in right answers an example.
    """
    places = [place for place, program in enumerate(programs) if expressible_as_counts(program.counts)]
    kept, of_kept = [programs[place] for place in places], right[:, places]
    fitted = fit_chances(principal_components(inputs[known]), of_kept[known], num_landmarks=LANDMARKS)
    chances = np.empty(of_kept.shape)
    chances[known], chances[~known] = fitted.left_out, fitted.beliefs.chances(inputs[~known])
    rule = best_caution(fitted.left_out, of_kept[known], kept, layer_price=layer_price)
    chosen = rule.choose(chances)
    value = chances - layer_price * rule.lengths
    value[:, rule.best_static] += rule.caution
    weights = np.exp((value - value.max(1, keepdims=True)) / _TEMPERATURE)
    weights /= weights.sum(1, keepdims=True)
    counts = np.array([program.counts for program in kept])  # [M, L]
    shares = np.stack([weights @ (counts == number) for number in range(NUM_CLASSES)], axis=-1)
    return MenuLabels(programs=kept, places=np.array(places), chosen=chosen, shares=shares)

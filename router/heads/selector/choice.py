"""The choice among a menu's programs from predicted chances: the best expected value, or the best static program.

The *static* program has the most right answers on the training examples, less the price of its layers. A selector that
follows every predicted difference follows noise: it leaves the static program only where the predicted gain is above
its *caution*.

Shapes: N examples, M programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.program import LayerProgram

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class MenuChoice:
    """The rule of a choice.

    Attributes:
        lengths: Layers of each program, ``[M]``.
        static: Share of training examples on which each program is right, ``[M]``.
        caution: Least predicted gain over the static program for which it is left.
        layer_price: Price of a layer, in right answers an example.
        limit: Most layers of a program; None for no bound.
    """

    lengths: Array
    static: Array
    caution: float
    layer_price: float = 0.0
    limit: int | None = None

    @classmethod
    def of(cls, programs: Sequence[LayerProgram], right: Array, *, caution: float, layer_price: float) -> MenuChoice:
        """The rule after training examples, ``[N, M]``."""
        return cls(
            lengths=np.array([len(program) for program in programs]),
            static=right.mean(0),
            caution=caution,
            layer_price=layer_price,
        )

    @property
    def best_static(self) -> int:
        """Place of the static program: the best value within the limit, and of equal ones the shortest."""
        value = self._bounded(self.static - self.layer_price * self.lengths)
        return min(range(len(value)), key=lambda one: (-value[one], self.lengths[one], one))

    def choose(self, chances: Array) -> Array:
        """Places of the programs that run, from their predicted chances of being right, ``[N, M]`` to ``[N]``."""
        value = self._bounded(chances - self.layer_price * self.lengths)
        static = self.best_static
        best = value.argmax(1)
        gain = value[np.arange(len(value)), best] - value[:, static]
        return np.where(gain > self.caution, best, static)

    def _bounded(self, value: Array) -> Array:
        return value if self.limit is None else np.where(self.lengths <= self.limit, value, -np.inf)

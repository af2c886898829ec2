"""Layer programs: which decoder layers a forward pass runs, and in which order.

A program is the papers' "path" or "chain of layers" (Dr.LLM, arXiv 2510.12773; CoLa, arXiv
2507.07996). This module needs no model: a program is a tuple of indices and a depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import index

_TEXT_TERM = re.compile(r"(\d+)(?:-(\d+))?")
#: Guards 0.1 * 30 against its own binary fraction: a budget of exactly 3 layers admits 3.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, init=False)
class LayerProgram:
    """An immutable sequence of decoder-layer indices to run on the residual stream.

    ``LayerProgram((0, 1, 1, 3), num_layers=4)`` runs layer 1 twice and skips layer 2.

    Attributes:
        layers: The indices in the order in which they run, each in ``[0, num_layers)``.
        num_layers: Depth L of the model that the program is for.

    Raises:
        ValueError: The program is empty, or an index lies outside the model.
    """

    layers: tuple[int, ...]
    num_layers: int

    def __init__(self, layers: Iterable[int], num_layers: int) -> None:
        layers = tuple(index(layer) for layer in layers)
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if not layers:
            raise ValueError("a layer program must run at least one layer")
        for position, layer in enumerate(layers):
            if not 0 <= layer < num_layers:
                raise ValueError(
                    f"layer {layer} at position {position} is outside a model of {num_layers} layers "
                    f"(0 to {num_layers - 1})"
                )
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "num_layers", num_layers)

    # -- other constructors ----------------------------------------------------------------

    @classmethod
    def identity(cls, num_layers: int) -> LayerProgram:
        """The identity program, which is the base model: every layer once, in order."""
        return cls(range(num_layers), num_layers)

    @classmethod
    def from_counts(cls, counts: Iterable[int]) -> LayerProgram:
        """The program that runs each layer so many times in place: 0 skip, 1 execute, 2 repeat, and so on.

        Raises:
            ValueError: A count is negative, or all are 0.
        """
        counts = tuple(counts)
        for layer, count in enumerate(counts):
            if count < 0:
                raise ValueError(f"layer {layer} has a negative count: {count}")
        return cls((layer for layer, count in enumerate(counts) for _ in range(count)), len(counts))

    @classmethod
    def parse(cls, text: str, num_layers: int) -> LayerProgram:
        """Read the compact text form that ``str`` writes: ``"0-4,4,6-11"``.

        Raises:
            ValueError: The text is not of that form, or is no program of this depth.
        """
        layers: list[int] = []
        for term in text.split(","):
            match = _TEXT_TERM.fullmatch(term.strip())
            if match is None:
                raise ValueError(f"cannot read {term!r} in layer program {text!r}: expected '7' or '3-9'")
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first or last >= num_layers:
                raise ValueError(f"{term!r} in layer program {text!r} is no range of layers 0 to {num_layers - 1}")
            layers.extend(range(first, last + 1))
        return cls(layers, num_layers)

    # -- properties ------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __str__(self) -> str:
        """The program as compact text: rising runs as ``first-last``, joined by commas."""
        runs = groupby(enumerate(self.layers), key=lambda item: item[1] - item[0])
        spans = [[layer for _, layer in run] for _, run in runs]
        return ",".join(f"{s[0]}-{s[-1]}" if len(s) > 1 else f"{s[0]}" for s in spans)

    @property
    def described(self) -> str:
        """The program in a sentence: the identity program is the base model itself."""
        return "the base model" if self.is_identity else f"the program {self}"

    @property
    def is_identity(self) -> bool:
        """True for the identity program."""
        return self.layers == tuple(range(self.num_layers))

    @property
    def saved_layers(self) -> int:
        """Number of layers fewer than in the identity program; negative for a longer program."""
        return self.num_layers - len(self.layers)

    @property
    def counts(self) -> tuple[int, ...] | None:
        """Number of times that each layer runs; None if the program does not keep the order of the layers.

        Counts determine a program only if it keeps the layers' order and repeats layers in place, so
        that ``LayerProgram.from_counts(program.counts) == program``.
        """
        if any(after < before for before, after in zip(self.layers, self.layers[1:], strict=False)):
            return None
        counts = [0] * self.num_layers
        for layer in self.layers:
            counts[layer] += 1
        return tuple(counts)

    def within(self, budget: float) -> bool:
        """True if the program runs at most ``budget`` times the model's depth."""
        # Not by ``whole_layers``: a budget may be infinite.
        return len(self.layers) <= budget * self.num_layers + _ROUNDING

    # -- edits -----------------------------------------------------------------------------

    def skip(self, position: int, span: int = 1) -> LayerProgram:
        """Leave out ``span`` consecutive positions of the program, from ``position`` on.

        Raises:
            ValueError: The span leaves the program, or nothing would be left to run.
        """
        self._check_span(position, span)
        return LayerProgram(self.layers[:position] + self.layers[position + span :], self.num_layers)

    def repeat(self, position: int, span: int = 1, times: int = 1) -> LayerProgram:
        """Run the block of ``span`` positions from ``position`` on ``times`` more times, in place.

        Raises:
            ValueError: The span leaves the program, or ``times`` is below 1.
        """
        self._check_span(position, span)
        if times < 1:
            raise ValueError(f"a block is repeated at least once, got times={times}")
        end = position + span
        block = self.layers[position:end]
        return LayerProgram(self.layers[:end] + block * times + self.layers[end:], self.num_layers)

    def _check_span(self, position: int, span: int) -> None:
        if span < 1 or position < 0 or position + span > len(self.layers):
            raise ValueError(
                f"positions {position} to {position + span - 1} are not all in a program of {len(self.layers)} layers"
            )


def whole_layers(fraction: float, num_layers: int) -> int:
    """The number of whole layers in a fraction of a model's depth."""
    return int(fraction * num_layers + _ROUNDING)

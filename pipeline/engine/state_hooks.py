"""Probes that look on while prompts are read: labels and text from one forward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from pipeline.program import LayerProgram

#: Numbers of a parameter that tell one model's weights from another's.
_MARKED = 64
#: A frozen model's weights stay what they are.
_MARKS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class StateProbe(Protocol):
    """What looks on; see ``router.Probe``."""

    def check_model(self, hf_model: Any) -> None:
        """Refuse a model that it was not made for."""
        ...

    @property
    def whole(self) -> bool:
        """Whether it looks at every token that leaves the last layer, and not at the prompt's last one alone."""
        ...

    def take(self, state: torch.Tensor) -> torch.Tensor:
        """What it needs of one layer's states ``[T, D]``."""
        ...

    def label(self, states: torch.Tensor) -> Any:
        """What it says of a prompt, from what it took of each layer's, stacked."""
        ...


class PromptStates:
    """What probes take of prompts on their way through their programs.

    The states are those that enter each layer, run or not, and the one that leaves the last: as many as in the
    untouched model. A prompt's are kept until it is finished.

    Args:
        probes: Who looks on.
        programs: The prompts' programs.

    Raises:
        ValueError: A program is not in the layers' order: no state of it stands for a layer.
    """

    def __init__(self, probes: Sequence[StateProbe], programs: Sequence[LayerProgram]) -> None:
        self._probes = probes
        self._depths = [_depths(program) for program in programs]
        self._taken: dict[int, list[list[torch.Tensor]]] = {}
        self._said: dict[int, list[Any]] = {}

    def note(self, rows: Sequence[int], depth: int, state: torch.Tensor) -> None:
        """A state ``[T, D]`` of some rows, behind so many runs of layers."""
        parts = [probe.take(state) for probe in self._probes]
        for row in rows:
            taken = self._taken.setdefault(row, [[] for _ in self._probes])
            for of_probe, part in zip(taken, parts):
                # A batch that found no room is read again, from its beginning.
                of_probe[depth:] = [part]

    def finish(self, rows: Sequence[int]) -> None:
        """Some prompts were read: let the probes say what they think, and forget the states."""
        for row in rows:
            taken = self._taken.pop(row)
            self._said[row] = [
                probe.label(torch.stack([of_probe[depth] for depth in self._depths[row]]))
                for probe, of_probe in zip(self._probes, taken)
            ]

    def labels(self) -> list[list[Any]]:
        """For each row, what each probe says."""
        return [self._said[row] for row in range(len(self._depths))]


def _depths(program: LayerProgram) -> list[int]:
    """How many runs lie before each layer, and before the end."""
    counts = program.counts
    if counts is None:
        raise ValueError(f"a probe reads programs that keep the layers' order; {program} does not")
    depths = [0]
    for count in counts:
        depths.append(depths[-1] + count)
    return depths


def weights_fingerprint(hf_model: Any) -> str | None:
    """Tells a model's weights from another's of the same shape: a hash of some numbers of every parameter.

    They are rounded to bfloat16, so that float32 and bfloat16 give the same.

    Returns:
        The mark; None for a model in float16, which rounds otherwise.
    """
    if hf_model.dtype == torch.float16:
        return None
    mark = _MARKS.get(hf_model)
    if mark is None:
        digest = hashlib.sha256()
        for parameter in hf_model.parameters():
            numbers = parameter.detach().flatten()
            numbers = numbers[:: max(1, len(numbers) // _MARKED)][:_MARKED]
            # bfloat16 is not numpy's; its bits as integers are.
            digest.update(numbers.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes())
        mark = _MARKS[hf_model] = digest.hexdigest()[:32]
    return mark

"""Hooks on the residual stream while prompts are read, and the one that feeds probes: labels from the same pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from pipeline.program import LayerProgram

#: Called with each state ``[T, D]`` on the way through the programs: the rows that share it, the number of layers that
#: ran before it (0 for the embeddings), and the state.
OnState = Callable[[Sequence[int], int, torch.Tensor], None]


class StateHook(Protocol):
    """Receives the states of prompts while ``FrozenModel.decode`` reads them."""

    @property
    def every_token(self) -> bool:
        """Whether the state after the final layer must hold every token, not the prompt's last one alone."""
        ...

    def on_state(self, rows: Sequence[int], depth: int, state: torch.Tensor) -> None:
        """See ``OnState``. A batch that ran out of memory is read again, from its embeddings."""
        ...


def of_rows(on_state: OnState, rows: Sequence[int]) -> OnState:
    """The hook for a part of a call, whose row ``i`` is the call's row ``rows[i]``."""
    return lambda indices, depth, state: on_state([rows[index] for index in indices], depth, state)


class StateProbe(Protocol):
    """A classifier of prompts by their states; see ``router.Probe``."""

    def check_model(self, hf_model: Any) -> None:
        """Refuse a model that the probe was not made for.

        Raises:
            UserError: The model is another one.
        """
        ...

    @property
    def whole(self) -> bool:
        """Whether the probe reads every token behind the final layer, not the prompt's last one alone."""
        ...

    def take(self, state: torch.Tensor) -> torch.Tensor:
        """The part of one layer's states ``[T, D]`` that the probe needs."""
        ...

    def label(self, states: torch.Tensor) -> Any:
        """The label of a prompt, from the parts that it took of each layer's states, stacked."""
        ...


class ProbeHook:
    """Labels prompts with probes while they are read.

    A probe reads the states that enter each layer, run or not, and the one that leaves the last: as many as in the
    base model. A prompt's states are kept until its last one is there.

    Args:
        probes: The probes that read the states.
        programs: The prompts' programs, one a row.

    Raises:
        ValueError: A program is not in the layers' order: no state of it stands for a layer.
    """

    def __init__(self, probes: Sequence[StateProbe], programs: Sequence[LayerProgram]) -> None:
        self._probes = probes
        self._depths = [_entering_depths(program) for program in programs]
        self._taken: dict[int, list[list[torch.Tensor]]] = {}
        self._labels: dict[int, list[Any]] = {}

    @property
    def every_token(self) -> bool:
        """Whether a probe reads every token that leaves the final layer."""
        return any(probe.whole for probe in self._probes)

    def on_state(self, rows: Sequence[int], depth: int, state: torch.Tensor) -> None:
        """Take what the probes need of a state; label the rows whose last one it is."""
        parts = [probe.take(state) for probe in self._probes]
        for row in rows:
            taken = self._taken.setdefault(row, [[] for _ in self._probes])
            for of_probe, part in zip(taken, parts):
                of_probe[depth:] = [part]
            if depth == self._depths[row][-1]:
                self._labels[row] = self._label(row)

    def _label(self, row: int) -> list[Any]:
        taken = self._taken.pop(row)
        return [
            probe.label(torch.stack([of_probe[depth] for depth in self._depths[row]]))
            for probe, of_probe in zip(self._probes, taken)
        ]

    def labels(self) -> list[list[Any]]:
        """For each row, each probe's label."""
        return [self._labels[row] for row in range(len(self._depths))]


def _entering_depths(program: LayerProgram) -> list[int]:
    """The number of layers of a program that run before each layer of the model, and before the end."""
    counts = program.counts
    if counts is None:
        raise ValueError(f"a probe reads programs that keep the layers' order; {program} does not")
    depths = [0]
    for count in counts:
        depths.append(depths[-1] + count)
    return depths

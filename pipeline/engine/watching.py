"""Probes that look on while prompts are read: labels and text from one forward pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from pipeline.program import LayerProgram

#: Rows of the embeddings that tell one model's weights from another's.
_MARKED_ROWS = 64


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
    untouched model.

    Args:
        probes: Who looks on.
        programs: The prompts' programs.

    Raises:
        ValueError: A program is not in the layers' order: no state of it stands for a layer.
    """

    def __init__(self, probes: Sequence[StateProbe], programs: Sequence[LayerProgram]) -> None:
        self._probes = probes
        self._depths = [_depths(program) for program in programs]
        self._taken: list[list[list[torch.Tensor]]] = [[[] for _ in programs] for _ in probes]

    def note(self, rows: Sequence[int], depth: int, state: torch.Tensor) -> None:
        """A state ``[T, D]`` of some rows, behind so many runs of layers."""
        for probe, taken in zip(self._probes, self._taken):
            part = probe.take(state)
            for row in rows:
                # A batch that found no room is read again, from its beginning.
                taken[row][depth:] = [part]

    def labels(self) -> list[list[Any]]:
        """For each row, what each probe says."""
        return [
            [
                probe.label(torch.stack([taken[row][depth] for depth in depths]))
                for probe, taken in zip(self._probes, self._taken)
            ]
            for row, depths in enumerate(self._depths)
        ]


def _depths(program: LayerProgram) -> list[int]:
    """How many runs lie before each layer, and before the end."""
    counts = program.counts
    if counts is None:
        raise ValueError(f"a probe reads programs that keep the layers' order; {program} does not")
    depths = [0]
    for count in counts:
        depths.append(depths[-1] + count)
    return depths


def weights_mark(hf_model: Any) -> str:
    """Tells a model's weights from another's of the same shape, whatever precision they are loaded in.

    A hash of some rows of the embeddings and of the last layer's first matrix, rounded to bfloat16.
    """
    embeddings = hf_model.get_input_embeddings().weight
    last = next(parameter for parameter in hf_model.model.layers[-1].parameters() if parameter.ndim > 1)
    step = max(1, len(embeddings) // _MARKED_ROWS)
    parts = [embeddings.detach()[::step][:_MARKED_ROWS], last.detach()[:_MARKED_ROWS]]
    digest = hashlib.sha256()
    for part in parts:
        # bfloat16 is not numpy's; its bits as integers are.
        digest.update(part.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:32]

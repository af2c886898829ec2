"""Keys and values for layer programs: one slot for each run of a layer.

A repeated layer runs twice in its program and must keep two sets of keys and values. Stock caches
index by the layer's own ``layer_idx``, which gives a repeated layer the keys of both runs: logits
come out wrong and nothing complains. Here a slot is a layer and how often it ran before, so each
position of a program has its own, and programs that differ elsewhere still share a slot's tensor.
"""

from __future__ import annotations

import torch

from pipeline.program import LayerProgram

#: A layer, and how many of its runs came before.
Slot = tuple[int, int]


def slots_of(program: LayerProgram) -> list[Slot]:
    """The slot of each position of a program; no two are equal."""
    runs: dict[int, int] = {}
    slots = []
    for layer in program:
        slots.append((layer, runs.get(layer, 0)))
        runs[layer] = slots[-1][1] + 1
    return slots


class KVSlots:
    """Keys and values of a batch of rows, by slot, row and token position.

    Each slot's tensors are ``[rows, heads, tokens, head_dim]``, made when the slot is first written. A
    token's index is its position in the text; what lies behind a row's tokens is never read.

    Args:
        num_rows: Rows in the batch.
        max_tokens: Most tokens that a row will ever hold.
    """

    def __init__(self, *, num_rows: int, max_tokens: int) -> None:
        self.num_rows = num_rows
        self._max_tokens = max_tokens
        self._stores: dict[Slot, tuple[torch.Tensor, torch.Tensor]] = {}

    def fill(self, slot: Slot, row: int, keys: torch.Tensor, values: torch.Tensor, *, start: int = 0) -> None:
        """Write one row's keys and values ``[heads, t, head_dim]`` from token position ``start`` on."""
        end = start + keys.shape[1]
        for store, new in zip(self._slot(slot, keys, values, heads=keys.shape[0]), (keys, values)):
            store[row, :, start:end] = new

    def append(
        self, slot: Slot, rows: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write one token of each row: keys and values ``[b, heads, head_dim]`` at ``positions`` ``[b]``."""
        for store, new in zip(self._slot(slot, keys, values, heads=keys.shape[1]), (keys, values)):
            store[rows, :, positions] = new

    def read(self, slot: Slot, extent: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows' keys and values up to a token position: two views ``[rows, heads, extent, head_dim]``."""
        keys, values = self._stores[slot]
        return keys[:, :, :extent], values[:, :, :extent]

    def _slot(
        self, slot: Slot, keys: torch.Tensor, values: torch.Tensor, *, heads: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if slot not in self._stores:
            shape = (self.num_rows, heads, self._max_tokens)
            # Zeros, not whatever lies there: a row that idles along must not meet a number that is none.
            self._stores[slot] = (
                keys.new_zeros(*shape, keys.shape[-1]),
                values.new_zeros(*shape, values.shape[-1]),
            )
        return self._stores[slot]

"""Keys and values for layer programs: one slot for each run of a layer.

A repeated layer runs twice in its program and must keep two sets of keys and values. Stock caches
index by the layer's own ``layer_idx``, which gives a repeated layer the keys of both runs: the logits are wrong,
without an error. Here a slot is a layer and how often it ran before, so each position of a program has its own, and
programs that differ elsewhere still share a slot's tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


class KVPool:
    """Memory for slots, kept from one batch to the next: fresh memory costs more than what is written to it."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[Slot, int], torch.Tensor] = {}

    def zeros(self, slot: Slot, part: int, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """A tensor of zeros; the one made for the same slot and part before is void."""
        size = math.prod(shape)
        buffer = self._buffers.pop((slot, part), None)
        if buffer is None or len(buffer) < size:
            buffer = like.new_empty(size)
        self._buffers[slot, part] = buffer
        # Memory as it comes may hold NaN, and a masked NaN key still makes its row NaN.
        return buffer[:size].zero_().view(shape)


class KVSlots:
    """Keys and values of a batch of rows, by slot, row and token position.

    Each slot's tensors are ``[users, heads, tokens, head_dim]``, made when the slot is first written; its
    users are the rows whose programs have the slot. A token's index is its position in the text; what
    lies behind a row's tokens is never read.

    Args:
        programs: One a row.
        max_tokens: Most tokens that a row will ever hold.
        pool: The pool that the memory comes from.
    """

    def __init__(self, programs: Sequence[LayerProgram], *, max_tokens: int, pool: KVPool) -> None:
        self.slots = [slots_of(program) for program in programs]
        self._max_tokens = max_tokens
        self._pool = pool
        self._users: dict[Slot, dict[int, int]] = {}
        for row, slots in enumerate(self.slots):
            for slot in slots:
                users = self._users.setdefault(slot, {})
                users[row] = len(users)
        self._stores: dict[Slot, tuple[torch.Tensor, torch.Tensor]] = {}

    def users(self, slot: Slot, rows: Sequence[int]) -> list[int]:
        """The indices of rows among the slot's users."""
        users = self._users[slot]
        return [users[row] for row in rows]

    def fill(self, slot: Slot, row: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write one row's keys and values ``[heads, t, head_dim]`` from its first token on."""
        user = self._users[slot][row]
        for store, new in zip(self._slot(slot, keys, values, heads=keys.shape[0]), (keys, values)):
            store[user, :, : keys.shape[1]] = new

    def append(
        self, slot: Slot, users: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Write one token of some users: keys and values ``[b, heads, head_dim]`` at ``positions`` ``[b]``."""
        for store, new in zip(self._slot(slot, keys, values, heads=keys.shape[1]), (keys, values)):
            store[users, :, positions] = new

    def read(self, slot: Slot, extent: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All users' keys and values up to a token position: two views ``[users, heads, extent, head_dim]``."""
        keys, values = self._stores[slot]
        return keys[:, :, :extent], values[:, :, :extent]

    def _slot(
        self, slot: Slot, keys: torch.Tensor, values: torch.Tensor, *, heads: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if slot not in self._stores:
            shape = (len(self._users[slot]), heads, self._max_tokens)
            self._stores[slot] = (
                self._pool.zeros(slot, 0, (*shape, keys.shape[-1]), keys),
                self._pool.zeros(slot, 1, (*shape, values.shape[-1]), values),
            )
        return self._stores[slot]


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotView:
    """The slots of some of a store's rows, by the rows' index in a call.

    Attributes:
        store: The keys and values.
        rows: For each row of the call its row of the store.
    """

    store: KVSlots
    rows: Sequence[int]

    def slot(self, row: int, position: int) -> Slot:
        """The slot of a position of a row's program."""
        return self.store.slots[self.rows[row]][position]

    def fill(self, row: int, position: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write a row's keys and values ``[heads, t, head_dim]`` of one position of its program."""
        self.store.fill(self.slot(row, position), self.rows[row], keys, values)

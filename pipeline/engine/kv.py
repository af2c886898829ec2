"""Keys and values for layer programs: one slot for each position of the program.

A repeated layer runs at two positions of its program and must keep two sets of keys and values.
Stock caches index by the layer's own ``layer_idx``, which gives a repeated layer the keys of both
runs: logits come out wrong and nothing complains. Here a slot is chosen by the caller.
"""

from __future__ import annotations

from typing import Any

import torch


class KVSlots:
    """Keys and values of a batch of rows, by program position, row and token position.

    Storage is ``[slots, rows, heads, tokens, head_dim]``, made at the first write. A token's index is
    its position in the text, so padding written behind a row's tokens is overwritten as it grows.

    Args:
        num_slots: Length of the longest program in the batch.
        num_rows: Rows B in the batch.
        max_tokens: Most tokens that a row will ever hold.
    """

    def __init__(self, *, num_slots: int, num_rows: int, max_tokens: int) -> None:
        self._shape = (num_slots, num_rows, max_tokens)
        self._keys: torch.Tensor | None = None
        self._values: torch.Tensor | None = None

    def at(self, *, slots: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, extent: int) -> SlotView:
        """The view that one call of one layer works on.

        Args:
            slots: Program position of each row in the call, ``[b]``.
            rows: Index of each row in the batch, ``[b]``.
            positions: Token positions being run, ``[b, t]``.
            extent: Keys 0…extent-1 take part in the attention.
        """
        return SlotView(self, slots, rows, positions, extent)

    def write_and_read(
        self, view: SlotView, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values ``[b, heads, t, head_dim]``; return all up to the view's extent."""
        if self._keys is None or self._values is None:
            self._keys, self._values = self._allocate(keys), self._allocate(values)
        slots, rows = view.slots, view.rows
        for store, new in ((self._keys, keys), (self._values, values)):
            # Indices on both sides of a slice put the indexed axes first: [b, t, heads, head_dim].
            store[slots[:, None], rows[:, None], :, view.positions] = new.transpose(1, 2)
        return self._keys[slots, rows, :, : view.extent], self._values[slots, rows, :, : view.extent]

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        num_slots, num_rows, max_tokens = self._shape
        _, heads, _, head_dim = like.shape
        return like.new_zeros(num_slots, num_rows, heads, max_tokens, head_dim)


class SlotView:
    """What a layer gets as ``past_key_values``: it answers ``update`` and ignores ``layer_idx``."""

    def __init__(
        self, store: KVSlots, slots: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, extent: int
    ) -> None:
        self._store = store
        self.slots = slots
        self.rows = rows
        self.positions = positions
        self.extent = extent

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the attention module in place of a transformers cache."""
        return self._store.write_and_read(self, key_states, value_states)

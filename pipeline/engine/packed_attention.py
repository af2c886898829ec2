"""Attention over packed rows: what a layer call needs to know about the texts in it.

A layer call holds the tokens of many texts one behind the other, ``[1, N, D]``, without padding. Linear
layers and norms do not care; attention must keep the texts apart. transformers lets a model name its
attention function, and the engine's copies of the layers name the one below. It cuts the packed
queries, keys and values at the texts' borders and hands each piece to the function that the model came
with, so that every rule of an architecture (grouped heads, soft caps, scaling) stays its own.

Which pieces those are, the caller says through the layer's ``attention_mask`` argument, which layers
pass on unread:

- ``WholeTexts``: each text from its first token on.
- ``KeysOnly``: nothing is attended; the call ends once keys and values are there.
- ``Tails``: the last tokens of each text, over keys and values that were made before.
- ``NewestTokens``: one new token of each row, over its slots in a ``KVSlots``.

Shapes: H query heads, G key heads, d their size, T tokens of a text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from transformers import AttentionInterface

from pipeline.engine.kv_cache import KVSlots, Slot

#: The name under which the engine's layers find their attention function.
PACKED = "layer_programs"

#: Queries ``[b, H, t, d]``, keys and values ``[b, G, T, d]`` and a mask to outputs ``[b, t, H, d]``.
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
#: From query positions ``[b, t]`` and the number of keys to a mask, in the form that the kernel reads.
MaskOf = Callable[[torch.Tensor, int], torch.Tensor | None]


class Piecewise(Protocol):
    """How one layer call attends."""

    kernel_name: str

    def attend(self, kernel: Kernel, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Packed queries ``[1, H, N, d]``, keys and values ``[1, G, N, d]`` to outputs ``[1, N, H, d]``."""
        ...


class KeysTaken(Exception):  # noqa: N818  # a signal, not an error
    """Ends a layer call whose keys and values were all that was wanted."""


class WholeTexts:
    """Each text from its first token on, causally.

    Args:
        lengths: Tokens of each text, in the order in which they are packed.
        mask_of: The masks of the layer's kind.
        kernel_name: The attention function that the model came with.

    Attributes:
        keys: What the layer made of the tokens, ``[1, G, N, d]``; there after the call.
        values: Likewise.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, lengths: Sequence[int], mask_of: MaskOf, kernel_name: str) -> None:
        self.lengths = lengths
        self.mask_of = mask_of
        self.kernel_name = kernel_name

    def attend(self, kernel: Kernel, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        self.keys, self.values = keys, values
        outputs = []
        offset = 0
        for length, texts in groupby(self.lengths):
            # Neighbours of one length are one batch: [1, H, b·T, d] to [b, H, T, d].
            number = len(list(texts))
            end = offset + number * length

            def split(packed: torch.Tensor, part: slice = slice(offset, end), b: int = number) -> torch.Tensor:
                heads, _, size = packed[0, :, part].shape
                return packed[0, :, part].view(heads, b, -1, size).transpose(0, 1)

            positions = torch.arange(length, device=queries.device)[None]
            output = kernel(split(queries), split(keys), split(values), self.mask_of(positions, length))
            outputs.append(output.flatten(0, 1))
            offset = end
        return _joined(outputs)[None]


class KeysOnly:
    """Keys and values of every token, and nothing else of the layer: ``attend`` raises ``KeysTaken``.

    Attributes:
        keys: ``[1, G, N, d]``; there after the call.
        values: Likewise.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, kernel_name: str) -> None:
        self.kernel_name = kernel_name

    def attend(self, kernel: Kernel, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        self.keys, self.values = keys, values
        raise KeysTaken


class Tails:
    """The last tokens of each text, over keys and values of the whole text.

    Args:
        made: Keys and values of the whole texts, packed.
        lengths: Tokens of each text.
        tails: How many of them are run.
        mask_of: The masks of the layer's kind.
    """

    def __init__(self, made: KeysOnly, lengths: Sequence[int], tails: Sequence[int], mask_of: MaskOf) -> None:
        self.made = made
        self.lengths = lengths
        self.tails = tails
        self.mask_of = mask_of
        self.kernel_name = made.kernel_name

    def attend(self, kernel: Kernel, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        parts = zip(
            torch.split(queries, list(self.tails), dim=2),
            torch.split(self.made.keys, list(self.lengths), dim=2),
            torch.split(self.made.values, list(self.lengths), dim=2),
        )
        outputs = []
        for (own, text_keys, text_values), length, tail in zip(parts, self.lengths, self.tails):
            positions = torch.arange(length - tail, length, device=queries.device)[None]
            outputs.append(kernel(own, text_keys, text_values, self.mask_of(positions, length))[0])
        return _joined(outputs)[None]


class NewestTokens:
    """One new token of each row, over everything that its slots hold, itself included.

    Args:
        store: The rows' keys and values.
        slots: Each row's slot for this layer.
        rows: Each row's index in the store.
        positions: The position of each row's new token.
        mask_of: The masks of the layer's kind.
        kernel_name: The attention function that the model came with.
    """

    def __init__(
        self,
        store: KVSlots,
        *,
        slots: Sequence[Slot],
        rows: Sequence[int],
        positions: Sequence[int],
        mask_of: MaskOf,
        kernel_name: str,
    ) -> None:
        self.store = store
        self.slots = slots
        self.rows = rows
        self.positions = positions
        self.mask_of = mask_of
        self.kernel_name = kernel_name

    def attend(self, kernel: Kernel, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        device = queries.device
        own_queries, own_keys, own_values = (packed[0].transpose(0, 1) for packed in (queries, keys, values))
        output = torch.empty_like(own_queries)
        for slot in sorted(set(self.slots)):
            here = [index for index, other in enumerate(self.slots) if other == slot]
            packed = torch.tensor(here, device=device)
            places = torch.tensor(self.store.places(slot, [self.rows[index] for index in here]), device=device)
            ends = [self.positions[index] for index in here]
            where = torch.tensor(ends, device=device)
            self.store.append(slot, places, where, own_keys[packed], own_values[packed])
            extent = max(ends) + 1
            all_keys, all_values = self.store.read(slot, extent)
            users = len(all_keys)
            if 2 * len(here) > users:
                # Most of its users take part: let the others idle along rather than copy what these have.
                asked = own_queries.new_zeros(users, *own_queries.shape[1:])
                asked[places] = own_queries[packed]
                reach = where.new_full((users,), extent - 1)
                reach[places] = where
                attended = kernel(asked[:, :, None], all_keys, all_values, self.mask_of(reach[:, None], extent))[places]
            else:
                mask = self.mask_of(where[:, None], extent)
                attended = kernel(own_queries[packed][:, :, None], all_keys[places], all_values[places], mask)
            output[packed] = attended[:, 0]
        return output[None]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Piecewise,
    **rules: Any,
) -> tuple[torch.Tensor, None]:
    """What the engine's layers call; ``rules`` are the architecture's own (scaling, soft cap, …)."""
    if attention_mask.kernel_name == "eager":
        stock = sys.modules[type(module).__module__].eager_attention_forward
    else:
        stock = AttentionInterface._global_mapping[attention_mask.kernel_name]

    def kernel(
        queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        output: torch.Tensor = stock(module, queries, keys, values, mask, **rules)[0]
        return output

    return attention_mask.attend(kernel, query, key, value), None


AttentionInterface.register(PACKED, _packed_attention)

"""Attention over packed rows: what a layer call needs to know about the texts in it.

A layer call holds the tokens of many texts one behind the other, ``[1, N, D]``, without padding. Linear
layers and norms work on each token alone; attention must keep the texts apart. transformers lets a model name its
attention function, and the engine's copies of the layers name the one below. It cuts the packed
queries, keys and values at the texts' borders and hands each part to the function that the model came
with, so that every rule of an architecture (grouped heads, soft caps, scaling) stays its own.

Which parts those are, the caller says through the layer's ``attention_mask`` argument, which layers
pass on unread:

- ``WholeTexts``: each text from its first token on.
- ``KeysOnly``: nothing is attended; the call ends once keys and values are there.
- ``Tails``: the last tokens of each text, over keys and values that were made before.
- ``NewestTokens``: one new token of each row, over its slots in a ``KVSlots``.

A tensor's name ends with its shape, one letter a dimension:

- ``B``: texts of one length, or rows with one new token each
- ``T``: tokens whose queries are computed
- ``S``: tokens whose keys they may see
- ``N``: tokens of several texts, packed one behind the other
- ``H``: query heads
- ``G``: key and value heads
- ``K``: head size
- ``U``: users of a slot, see ``KVSlots``
"""

# ruff: noqa: N803, N806, N815  # capital letters at the end of a name are the tensor's shape

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

#: Queries ``[B, H, T, K]``, keys and values ``[B, G, S, K]`` and a mask to outputs ``[B, T, H, K]``.
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
#: From query positions ``[B, T]`` and the number of keys to a mask, in the form that the kernel reads.
MaskOf = Callable[[torch.Tensor, int], torch.Tensor | None]


class PackedAttention(Protocol):
    """The attention of one layer call.

    Attributes:
        kernel_name: The attention function that the model came with.
    """

    kernel_name: str

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        """From packed queries, keys and values to outputs ``[1, N, H, K]``."""
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
        keys_1GNK: The layer's keys of the tokens, set by the call.
        values_1GNK: The layer's values of the tokens, set by the call.
    """

    keys_1GNK: torch.Tensor
    values_1GNK: torch.Tensor

    def __init__(self, lengths: Sequence[int], mask_of: MaskOf, kernel_name: str) -> None:
        self.lengths = lengths
        self.mask_of = mask_of
        self.kernel_name = kernel_name

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        self.keys_1GNK, self.values_1GNK = keys_1GNK, values_1GNK
        outputs = []
        offset = 0
        for length, texts in groupby(self.lengths):
            # Neighbours of one length are one batch: [1, heads, B·T, K] to [B, heads, T, K].
            number = len(list(texts))
            end = offset + number * length

            def split(packed: torch.Tensor, part: slice = slice(offset, end), number: int = number) -> torch.Tensor:
                heads, _, size = packed[0, :, part].shape
                return packed[0, :, part].view(heads, number, -1, size).transpose(0, 1)

            positions_1T = torch.arange(length, device=queries_1HNK.device)[None]
            output_BTHK = kernel(
                split(queries_1HNK), split(keys_1GNK), split(values_1GNK), self.mask_of(positions_1T, length)
            )
            outputs.append(output_BTHK.flatten(0, 1))
            offset = end
        return _joined(outputs)[None]


class KeysOnly:
    """Keys and values of every token, and nothing else of the layer: ``attend`` raises ``KeysTaken``.

    Args:
        kernel_name: The attention function that the model came with.

    Attributes:
        keys_1GNK: The layer's keys of the tokens, set by the call.
        values_1GNK: The layer's values of the tokens, set by the call.
    """

    keys_1GNK: torch.Tensor
    values_1GNK: torch.Tensor

    def __init__(self, kernel_name: str) -> None:
        self.kernel_name = kernel_name

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        self.keys_1GNK, self.values_1GNK = keys_1GNK, values_1GNK
        raise KeysTaken


class Tails:
    """The last tokens of each text, over keys and values of the whole text.

    Args:
        made: Keys and values of the whole texts, packed.
        lengths: Tokens of each text.
        tails: Number of tokens that are run in each row.
        mask_of: The masks of the layer's kind.
    """

    def __init__(self, made: KeysOnly, lengths: Sequence[int], tails: Sequence[int], mask_of: MaskOf) -> None:
        self.made = made
        self.lengths = lengths
        self.tails = tails
        self.mask_of = mask_of
        self.kernel_name = made.kernel_name

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        parts = zip(
            torch.split(queries_1HNK, list(self.tails), dim=2),
            torch.split(self.made.keys_1GNK, list(self.lengths), dim=2),
            torch.split(self.made.values_1GNK, list(self.lengths), dim=2),
        )
        outputs = []
        for (queries_1HTK, keys_1GSK, values_1GSK), length, tail in zip(parts, self.lengths, self.tails):
            positions_1T = torch.arange(length - tail, length, device=queries_1HNK.device)[None]
            outputs.append(kernel(queries_1HTK, keys_1GSK, values_1GSK, self.mask_of(positions_1T, length))[0])
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

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        device = queries_1HNK.device
        # A row has one new token, so the packed tokens are the rows: N = B.
        queries_BHK, keys_BGK, values_BGK = (
            packed[0].transpose(0, 1) for packed in (queries_1HNK, keys_1GNK, values_1GNK)
        )
        output_BHK = torch.empty_like(queries_BHK)
        for slot in sorted(set(self.slots)):
            here = [index for index, other in enumerate(self.slots) if other == slot]
            packed = torch.tensor(here, device=device)
            users = torch.tensor(self.store.users(slot, [self.rows[index] for index in here]), device=device)
            ends = [self.positions[index] for index in here]
            positions_B = torch.tensor(ends, device=device)
            self.store.append(slot, users, positions_B, keys_BGK[packed], values_BGK[packed])
            extent = max(ends) + 1
            keys_UGSK, values_UGSK = self.store.read(slot, extent)
            num_users = len(keys_UGSK)
            if 2 * len(here) > num_users:
                # Most of the slot's users take part: run the others along rather than copy the keys of these.
                queries_UHK = queries_BHK.new_zeros(num_users, *queries_BHK.shape[1:])
                queries_UHK[users] = queries_BHK[packed]
                positions_U = positions_B.new_full((num_users,), extent - 1)
                positions_U[users] = positions_B
                mask = self.mask_of(positions_U[:, None], extent)
                attended = kernel(queries_UHK[:, :, None], keys_UGSK, values_UGSK, mask)[users]
            else:
                mask = self.mask_of(positions_B[:, None], extent)
                attended = kernel(queries_BHK[packed][:, :, None], keys_UGSK[users], values_UGSK[users], mask)
            output_BHK[packed] = attended[:, 0]
        return output_BHK[None]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: PackedAttention,
    **rules: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function of the engine's layers; ``rules`` are the architecture's own (scaling, soft cap, …)."""
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

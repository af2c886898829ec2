"""Attention over packed rows: what a layer call needs to know about the texts in it.

A layer call holds the tokens of many texts one behind the other, ``[1, N, D]``, without padding. Linear
layers and norms work on each token alone; attention must keep the texts apart. transformers lets a model name its
attention function, and the engine's copies of the layers name the one below. It cuts the packed
queries, keys and values at the texts' borders and hands each part to the function that the model came
with, so that every rule of an architecture (grouped heads, soft caps, scaling) stays its own.

Which parts those are, the caller says through the layer's ``attention_mask`` argument, which layers
pass on unread:

- ``WholeTexts``: each text from its first token on; texts that begin alike have one opening (``TreeShape``).
- ``KeysOnly``: nothing is attended; the call ends once keys and values are there.
- ``Tails``: the last tokens of each text, over keys and values that were made before.
- ``NewestTokens``: one new token of each row, over its slots in a ``KVSlots``.

A tensor's name ends with its shape, one letter a dimension:

- ``B``: texts of one length, or rows with one new token each
- ``E``: trees of one shape, see ``TreeShape``
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
from dataclasses import dataclass
from itertools import accumulate, groupby
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeShape:
    """The packing of texts that begin alike: the first one whole, of the others what comes behind the opening.

    Attributes:
        opening: Tokens that all texts begin with; 0 for a text alone.
        lengths: Tokens of each text, its opening included.
    """

    opening: int
    lengths: tuple[int, ...]

    @property
    def starts(self) -> list[int]:
        """The position of the first token of each text that is packed."""
        return [0, *[self.opening] * (len(self.lengths) - 1)]

    @property
    def ends(self) -> list[int]:
        """The end of each text among the packed tokens."""
        return list(accumulate(length - start for length, start in zip(self.lengths, self.starts)))

    @property
    def num_tokens(self) -> int:
        """Number of packed tokens N."""
        return sum(self.lengths) - self.opening * (len(self.lengths) - 1)

    def whole(self, packed: torch.Tensor, index: int, dim: int = 0) -> torch.Tensor:
        """All tokens of one text, T of them, from a tensor that has the packed tokens in dimension ``dim``."""
        end = self.ends[index]
        own = packed.narrow(
            dim, end - self.lengths[index] + self.starts[index], self.lengths[index] - self.starts[index]
        )
        return own if self.starts[index] == 0 else torch.cat([packed.narrow(dim, 0, self.opening), own], dim)


class KeysTaken(Exception):  # noqa: N818  # a signal, not an error
    """Ends a layer call whose keys and values were all that was wanted."""


class WholeTexts:
    """Each text from its first token on, causally.

    Args:
        shapes: The trees, in the order in which they are packed.
        mask_of: The masks of the layer's kind.
        kernel_name: The attention function that the model came with.

    Attributes:
        keys_1GNK: The layer's keys of the tokens, set by the call.
        values_1GNK: The layer's values of the tokens, set by the call.
    """

    keys_1GNK: torch.Tensor
    values_1GNK: torch.Tensor

    def __init__(self, shapes: Sequence[TreeShape], mask_of: MaskOf, kernel_name: str) -> None:
        self.shapes = shapes
        self.mask_of = mask_of
        self.kernel_name = kernel_name

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        self.keys_1GNK, self.values_1GNK = keys_1GNK, values_1GNK
        outputs = []
        offset = 0
        for shape, equals in groupby(self.shapes):
            # Neighbours of one shape are one batch: [1, heads, E·N, K] to [E, heads, N, K].
            number = len(list(equals))
            part = slice(offset, offset + number * shape.num_tokens)
            queries_EHNK, keys_EGNK, values_EGNK = (
                packed[0, :, part].view(packed.shape[1], number, -1, packed.shape[-1]).transpose(0, 1)
                for packed in (queries_1HNK, keys_1GNK, values_1GNK)
            )
            output_ENHK = self._attend_trees(kernel, queries_EHNK, keys_EGNK, values_EGNK, shape)
            outputs.append(output_ENHK.flatten(0, 1))
            offset = part.stop
        return _joined(outputs)[None]

    def _attend_trees(
        self,
        kernel: Kernel,
        queries_EHNK: torch.Tensor,
        keys_EGNK: torch.Tensor,
        values_EGNK: torch.Tensor,
        shape: TreeShape,
    ) -> torch.Tensor:
        """From the queries, keys and values of trees of one shape to outputs ``[E, N, H, K]``."""
        device = queries_EHNK.device
        trees, opening, start = len(queries_EHNK), shape.opening, shape.opening
        outputs = []
        if opening:
            queries, keys, values = (packed[:, :, :opening] for packed in (queries_EHNK, keys_EGNK, values_EGNK))
            positions_1T = torch.arange(opening, device=device)[None]
            outputs.append(kernel(queries, keys, values, self.mask_of(positions_1T, opening)))
        for length, equals in groupby(shape.lengths):
            # Texts of one length are one batch, with those of the other trees: B = E · texts.
            number = len(list(equals))
            stop = start + number * (length - opening)
            queries, keys, values = (
                _texts(packed[:, :, start:stop], number) for packed in (queries_EHNK, keys_EGNK, values_EGNK)
            )
            if opening:
                keys = _behind(keys_EGNK[:, :, :opening], keys)
                values = _behind(values_EGNK[:, :, :opening], values)
            positions_1T = torch.arange(opening, length, device=device)[None]
            output_BTHK = kernel(queries, keys, values, self.mask_of(positions_1T, length))
            outputs.append(output_BTHK.reshape(trees, -1, *output_BTHK.shape[2:]))
            start = stop
        return _joined(outputs, dim=1)


def _texts(packed_EGNK: torch.Tensor, number: int) -> torch.Tensor:
    """The texts of trees as a batch: ``[E, heads, texts·T, K]`` to ``[E·texts, heads, T, K]``."""
    trees, heads, _, size = packed_EGNK.shape
    if number == 1:
        return packed_EGNK
    return packed_EGNK.reshape(trees, heads, number, -1, size).transpose(1, 2).flatten(0, 1)


def _behind(opening_EGSK: torch.Tensor, texts_BGTK: torch.Tensor) -> torch.Tensor:
    """Texts behind the openings of their trees: ``[B, G, S + T, K]``."""
    trees, number = len(opening_EGSK), len(texts_BGTK) // len(opening_EGSK)
    shared = opening_EGSK[:, None].expand(trees, number, -1, -1, -1).flatten(0, 1)
    return torch.cat([shared, texts_BGTK], dim=2)


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
        shapes: The trees of texts.
        tails: For each tree the number of tokens of each text that are run.
        mask_of: The masks of the layer's kind.
    """

    def __init__(
        self, made: KeysOnly, shapes: Sequence[TreeShape], tails: Sequence[Sequence[int]], mask_of: MaskOf
    ) -> None:
        self.made = made
        self.shapes = shapes
        self.tails = tails
        self.mask_of = mask_of
        self.kernel_name = made.kernel_name

    def attend(
        self, kernel: Kernel, queries_1HNK: torch.Tensor, keys_1GNK: torch.Tensor, values_1GNK: torch.Tensor
    ) -> torch.Tensor:
        sizes = [shape.num_tokens for shape in self.shapes]
        of_trees = zip(torch.split(self.made.keys_1GNK, sizes, dim=2), torch.split(self.made.values_1GNK, sizes, dim=2))
        outputs = []
        start = 0
        for (keys_1GNK, values_1GNK), shape, tails in zip(of_trees, self.shapes, self.tails):
            for index, (length, tail) in enumerate(zip(shape.lengths, tails)):
                positions_1T = torch.arange(length - tail, length, device=queries_1HNK.device)[None]
                output_1THK = kernel(
                    queries_1HNK[:, :, start : start + tail],
                    shape.whole(keys_1GNK, index, dim=2),
                    shape.whole(values_1GNK, index, dim=2),
                    self.mask_of(positions_1T, length),
                )
                outputs.append(output_1THK[0])
                start += tail
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


def _joined(parts: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


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

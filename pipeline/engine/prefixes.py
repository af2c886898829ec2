"""Shared prefixes: what a text's residual stream is after the first layers of a program.

Programs of one question differ from each other in an edit or two. Whatever comes before the first
difference is run once and kept, and the next program starts from there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

_Key = tuple[int, tuple[int, ...]]


class PrefixCache:
    """Residual streams ``[T, D]`` by text and by the layers that made them; least recently used out.

    Args:
        max_bytes: Most bytes kept; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._states: OrderedDict[_Key, torch.Tensor] = OrderedDict()
        self._texts: dict[tuple[int, ...], int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def clear(self) -> None:
        """Forget everything, so that what comes next depends on nothing that came before."""
        self._states.clear()
        self._texts.clear()
        self._bytes = 0

    def longest(self, text: Sequence[int], layers: Sequence[int]) -> tuple[int, torch.Tensor | None]:
        """The longest kept beginning of a program on a text.

        Returns:
            How many layers it has, and the residual stream after them; 0 and None where nothing is kept.
        """
        known = self._texts.get(tuple(text))
        if known is not None:
            for length in range(len(layers), 0, -1):
                key = (known, tuple(layers[:length]))
                state = self._states.get(key)
                if state is not None:
                    self._states.move_to_end(key)
                    return length, state
        return 0, None

    def keep(self, text: Sequence[int], layers: Sequence[int], state: torch.Tensor) -> None:
        """Keep the residual stream ``[T, D]`` of a text after the given layers."""
        size = state.numel() * state.element_size()
        if size > self.max_bytes:
            return
        key = (self._texts.setdefault(tuple(text), len(self._texts)), tuple(layers))
        if key in self._states:
            return
        # A slice of a batch would keep the whole batch alive.
        self._states[key] = state.clone()
        self._bytes += size
        while self._bytes > self.max_bytes:
            _, dropped = self._states.popitem(last=False)
            self._bytes -= dropped.numel() * dropped.element_size()

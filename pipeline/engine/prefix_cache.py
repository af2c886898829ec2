"""The prefix cache: a text's residual stream after the first layers of a program.

Programs of one prompt differ from each other in an edit or two. The layers before the first difference run once, and
their result is kept in a trie: a text's embeddings at the root, one more layer at each level. The next program starts
from the deepest node on its path.

Only the residual stream is cached. Where decoding needs the keys and values of a prefix, they are computed again from
it: a small part of a layer's work, and no memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch


class Prefix:
    """A node of the trie: one text after some layers.

    Attributes:
        state: The residual stream ``[T, D]``; None at the root, where it is the embeddings.
        children: The nodes a layer deeper, by that layer.
    """

    __slots__ = ("children", "layer", "parent", "state")

    def __init__(self, parent: Prefix | None, layer: int, state: torch.Tensor | None) -> None:
        self.parent = parent
        self.layer = layer
        self.state = state
        self.children: dict[int, Prefix] = {}


class PrefixCache:
    """Residual streams by text and by the layers that made them; the least recently used are evicted first.

    Args:
        max_bytes: Most bytes of states; 0 caches nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._roots: dict[tuple[int, ...], Prefix] = {}
        self._nodes: OrderedDict[Prefix, None] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def clear(self) -> None:
        """Evict everything, so that later results depend on no earlier call."""
        # Parents and children refer to each other. Python's collector looks for such circles by the number of
        # objects, and these are few and hold gigabytes: cut the circles, so that they are freed at once.
        for node in self._nodes:
            node.parent = None
        self._roots.clear()
        self._nodes.clear()
        self._bytes = 0

    def longest(
        self, text: Sequence[int], layers: Sequence[int], *, in_longer_texts: bool = True
    ) -> list[torch.Tensor]:
        """The longest cached prefix of a program on a text.

        Args:
            text: The text's tokens.
            layers: The program's layers.
            in_longer_texts: Whether a cached text that begins with this one will do: earlier tokens never
                see later ones.

        Returns:
            The residual streams ``[T, D]`` after the first layer, the second, and so on without a gap;
            empty where nothing is cached.
        """
        root = self._root(tuple(text), in_longer_texts)
        path: list[Prefix] = []
        while root is not None and len(path) < len(layers):
            child = (path[-1] if path else root).children.get(layers[len(path)])
            if child is None:
                break
            path.append(child)
        # From the deepest up, so that no node was ever used later than its parent.
        for node in reversed(path):
            self._nodes.move_to_end(node)
        return [node.state[: len(text)] for node in path if node.state is not None]

    def keep(self, text: Sequence[int], layers: Sequence[int], state: torch.Tensor) -> None:
        """Cache the residual stream ``[T, D]`` of a text after the given layers.

        A state whose path from the root is not cached is not cached either: ``longest`` could not find it.
        """
        size = _size(state)
        if size > self.max_bytes or not layers:
            return
        node = self._roots.setdefault(tuple(text), Prefix(None, -1, None))
        for layer in layers[:-1]:
            if layer not in node.children:
                return
            node = node.children[layer]
        last = layers[-1]
        if last in node.children:
            return
        # A slice of a batch would keep the whole batch alive.
        child = node.children[last] = Prefix(node, last, state.clone())
        self._nodes[child] = None
        self._bytes += size
        while node.parent is not None:
            self._nodes.move_to_end(node)
            node = node.parent
        while self._bytes > self.max_bytes:
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        """Evict the node whose last use is longest ago; it has no children, whose use would have been its own."""
        oldest, _ = self._nodes.popitem(last=False)
        assert not oldest.children and oldest.parent is not None and oldest.state is not None
        del oldest.parent.children[oldest.layer]
        self._bytes -= _size(oldest.state)

    def _root(self, text: tuple[int, ...], in_longer_texts: bool) -> Prefix | None:
        exact = self._roots.get(text)
        if exact is not None or not in_longer_texts:
            return exact
        longer = (root for known, root in self._roots.items() if known[: len(text)] == text)
        return next(longer, None)


def _size(state: torch.Tensor) -> int:
    return state.numel() * state.element_size()

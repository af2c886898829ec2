"""The programs that a search has found, and the edits between them.

A graph without cycles and with one root, the identity program. Two orders of the same edits meet in one node (a table
of transpositions), and an edge only ever leads one edit deeper, or to a node that is deeper already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.program import LayerProgram
from pipeline.search.actions import Edit

ROOT_INDEX = 0
NO_PARENT = -1


@dataclass(slots=True)
class Node:
    """One program in the graph.

    Attributes:
        program: The program.
        depth: Edits from the root on the path that found it.
        parent: The node that it was first made from; NO_PARENT for the root.
        edit: The label of the edit that made it.
        visits: Proposals of the program, and of programs below it.
        value: Sum or greatest of the rewards of those, by ``SearchConfig.backup``.
        children: Nodes one edit deeper.
        untried: Edits that no child was made from yet; None before the first expansion.
        exhausted: Nothing new can be found below.
    """

    program: LayerProgram
    depth: int
    parent: int = NO_PARENT
    edit: str = ""
    visits: int = 0
    value: float = 0.0
    children: list[int] = field(default_factory=list)
    untried: list[Edit] | None = None
    exhausted: bool = False


class ProgramGraph:
    """Nodes by index, and by program.

    Args:
        num_layers: Depth L of the model.
        max_length: Most layers of any program.
        edits: From a program and ``max_length`` to the edits; see ``action_spaces``.

    Attributes:
        nodes: All nodes, in the order in which they were found; ``ROOT_INDEX`` is the identity program.
    """

    def __init__(self, *, num_layers: int, max_length: int, edits: Callable[[LayerProgram, int], list[Edit]]) -> None:
        self.num_layers = num_layers
        self.max_length = max_length
        self.nodes = [Node(LayerProgram.identity(num_layers), depth=0)]
        self._edits = edits
        self._index = {self.root.program: ROOT_INDEX}

    @property
    def root(self) -> Node:
        """The node of the identity program, at index 0."""
        return self.nodes[ROOT_INDEX]

    def find(self, program: LayerProgram) -> int | None:
        """Index of a program's node; None where it has none yet."""
        return self._index.get(program)

    def edits(self, program: LayerProgram) -> list[Edit]:
        """Every edit of a program that the action space and the longest length allow."""
        return self._edits(program, self.max_length)

    def expand(self, parent: int, edit: Edit) -> int:
        """Make a node for the program that an edit leads to, as its parent's last child; returns its index."""
        assert edit.program not in self._index
        child = len(self.nodes)
        self.nodes.append(Node(edit.program, depth=self.nodes[parent].depth + 1, parent=parent, edit=edit.label))
        self.nodes[parent].children.append(child)
        self._index[edit.program] = child
        return child

    def path_to(self, index: int) -> list[int]:
        """Nodes from the root to this one, on the path that found it."""
        path = [index]
        while (parent := self.nodes[path[-1]].parent) != NO_PARENT:
            path.append(parent)
        return path[::-1]

"""Monte Carlo tree search: UCB with a length penalty, from the identity program.

The method is the papers' (Dr.LLM, arXiv 2510.12773, §3.1; CoLa, arXiv 2507.07996, §3). Their released code selects down
to a childless node and so grows a chain. Here a node gets more children as it is visited more (progressive widening).
"""

from __future__ import annotations

import math
import random

from pipeline.program import LayerProgram
from pipeline.search.actions import Edit
from pipeline.search.config import SearchConfig
from pipeline.search.program_graph import NO_PARENT, ROOT_INDEX, Node, ProgramGraph
from pipeline.search.verdicts import Verdict


class UcbSelection:
    """Walks from the root by UCB, and expands the first node on the path that may have one more child.

    Args:
        config: The UCB's constants.
        seed: State of the random numbers.
    """

    def __init__(self, *, config: SearchConfig, seed: int) -> None:
        self._config = config
        # Only .random() is used: its sequence is fixed by the language's documentation.
        self._random = random.Random(seed)
        self._found_right = False
        self._rewards: dict[LayerProgram, float] = {}
        #: By an edit's label, how much more reward programs had with it than without it.
        self._gains: dict[str, list[float]] = {}

    def select(self, graph: ProgramGraph) -> list[int] | None:
        """Walk from the root to a new node; None where the path ended in an exhausted one."""
        path = [ROOT_INDEX]
        while True:
            child = self._expand(graph, path[-1])
            if child is not None:
                return [*path, child]
            node = graph.nodes[path[-1]]
            open_children = [index for index in node.children if not graph.nodes[index].exhausted]
            if not open_children:
                node.exhausted = True
                return None
            path.append(self._descend(graph, node, open_children))

    def note_proposal(self, graph: ProgramGraph, path: list[int]) -> None:
        """Nothing to note: the visits on the path are the virtual loss."""

    def note_result(self, graph: ProgramGraph, path: list[int], verdict: Verdict, reward: float) -> None:
        """Note what the edit that made the program gained over its parent, where that was evaluated before."""
        self._found_right |= verdict.correct
        self._rewards[verdict.program] = reward
        node = graph.nodes[path[-1]]
        if node.parent == NO_PARENT:
            return
        before = self._rewards.get(graph.nodes[node.parent].program)
        if before is not None:
            self._gains.setdefault(node.edit, []).append(reward - before)

    @property
    def _length_penalty(self) -> float:
        """λ as it is now: length has no price until a program is right, where ``right_first`` says so."""
        waits = self._config.right_first and not self._found_right
        return 0.0 if waits else self._config.length_penalty

    def _descend(self, graph: ProgramGraph, node: Node, children: list[int]) -> int:
        """The child with the highest UCB, or a random one."""
        if self._random.random() < self._config.random_child:
            return children[int(self._random.random() * len(children))]
        log_visits = math.log(max(node.visits, 1))

        def ucb(index: int) -> float:
            child = graph.nodes[index]
            visits = max(child.visits, 1)
            return (
                (child.value if self._config.backup == "max" else child.value / visits)
                + self._config.exploration * math.sqrt(log_visits / visits)
                - self._length_penalty * len(child.program) / graph.num_layers
            )

        return max(children, key=ucb)

    def _expand(self, graph: ProgramGraph, index: int) -> int | None:
        """Give a node one new child, if its visits allow one more and an untried edit is left."""
        node = graph.nodes[index]
        if node.untried is None:
            node.untried = graph.edits(node.program)
        children_exhausted = all(graph.nodes[child].exhausted for child in node.children)
        allowed = self._config.widening * max(1, node.visits) ** self._config.widening_power
        # Only if the rule is on: a draw without need would change the random numbers of every other search.
        explores = bool(self._config.unexplored_child) and self._random.random() < self._config.unexplored_child
        while node.untried and (children_exhausted or explores or len(node.children) < allowed):
            edit = self._draw(graph, node)
            known = graph.find(edit.program)
            if known is None:
                return graph.expand(index, edit)
            # An edge only ever leads deeper, which keeps the graph free of cycles: an edit that
            # undoes an earlier one gets no edge.
            if graph.nodes[known].depth > node.depth:
                node.children.append(known)
                children_exhausted = children_exhausted and graph.nodes[known].exhausted
        return None

    def _draw(self, graph: ProgramGraph, node: Node) -> Edit:
        """Take one untried edit out of a node: the one with the highest expected gain, or a random one."""
        untried = node.untried
        assert untried
        chosen = None
        if self._gains and self._random.random() < self._config.recall:
            known = [index for index, edit in enumerate(untried) if edit.label in self._gains]
            chosen = max(known, key=lambda index: self._expected_gain(graph, node, untried[index]), default=None)
        if chosen is None:
            chosen = int(self._random.random() * len(untried))
        untried[chosen], untried[-1] = untried[-1], untried[chosen]
        return untried.pop()

    def _expected_gain(self, graph: ProgramGraph, node: Node, edit: Edit) -> float:
        """An edit's mean gain so far, with the layers that it saves at the UCB's price."""
        gains = self._gains[edit.label]
        saved = len(node.program) - len(edit.program)
        return sum(gains) / len(gains) + self._length_penalty * saved / graph.num_layers

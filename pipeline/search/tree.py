"""The search: a Monte Carlo tree of layer programs for one question, by ask and tell.

``propose`` asks for a program to run, ``update`` takes its result back. Nothing here knows a
model, a question or a process: any callable from programs to rewards can answer.

    tree = SearchTree(num_layers=30, config=SearchConfig(), seed=stable_seed(0, "question-7"))
    while (program := tree.propose()) is not None:
        tree.update(program, correct=..., margin=...)
    tree.best()

The method is the papers' (Dr.LLM, arXiv 2510.12773, §3.1; CoLa, arXiv 2507.07996, §3): UCB with a
length penalty from the identity program. Their released code selects down to a childless node and
so grows a chain; here a node gets more children as it is visited more (progressive widening), and
two orders of the same edits meet in one node (a table of transpositions).

Where other questions have taught a prior, it takes the place of the UCB: the next program is the one,
among all that are an edit away from any in the tree, that is expected to save most layers.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, field
from typing import Any

from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import get_action_space
from pipeline.search.actions import Edit
from pipeline.search.config import NO_PRIOR, SearchConfig
from pipeline.search.guided_selection import GuidedSelection
from pipeline.search.verdicts import Verdict, ranked, unbeaten

ROOT_INDEX = 0
NO_PARENT = -1


def stable_seed(run_seed: int, example_id: str) -> int:
    """A seed for one example that is the same on every machine, actor and Python version."""
    digest = hashlib.sha256(f"{run_seed}\0{example_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


@dataclass(slots=True)
class Node:
    """One program in the tree.

    Attributes:
        program: The program.
        depth: Edits from the root on the way that found it.
        parent: The node that it was first made from; NO_PARENT for the root.
        edit: The label of the edit that made it.
        visits: Proposals of it and of what lies below.
        value: Sum or greatest of what those were worth, by ``SearchConfig.backup``.
        children: Nodes one edit deeper.
        untried: Edits that have not been looked at; None before the first expansion.
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


class SearchTree:
    """A search over the layer programs of one question.

    Several programs may be asked for before the first is told back: a visit counts from the moment
    that its program is proposed, so that parallel proposals spread out (a virtual loss).

    Args:
        num_layers: Depth L of the model.
        config: What the search may do.
        seed: State of the search's own random numbers; see ``stable_seed``.
        prior: What other questions taught; None to go by this one alone.

    Raises:
        ValueError: The prior is for a model of another depth.
    """

    def __init__(self, *, num_layers: int, config: SearchConfig, seed: int, prior: Prior | None = None) -> None:
        if prior is not None and prior.num_layers != num_layers:
            raise ValueError(f"the prior is for {prior.num_layers} layers, the model has {num_layers}")
        space = get_action_space(config.action_space)
        if prior is not None and not space.keeps_order:
            raise ValueError(NO_PRIOR.format(space=config.action_space))
        self.config = config
        self.num_layers = num_layers
        self.max_program_length = max(1, int(config.max_length * num_layers + 1e-9))
        self.nodes = [Node(LayerProgram.identity(num_layers), depth=0)]
        self.verdicts: dict[LayerProgram, Verdict] = {}
        self.simulations = 0
        self._index = {self.nodes[ROOT_INDEX].program: ROOT_INDEX}
        self._actions = space.edits
        self._pending: dict[LayerProgram, list[int]] = {}
        self._worths: dict[LayerProgram, float] = {}
        self._gains: dict[str, list[float]] = {}
        self._found_right = False
        self._longest = max(1, int(config.budget * num_layers + 1e-9))
        self._frontier = (
            None if prior is None else GuidedSelection(prior, longest=self._longest, caution=config.caution)
        )
        # Only .random() is used: its sequence is fixed by the language's documentation.
        self._random = random.Random(seed)

    # -- ask and tell ----------------------------------------------------------------------

    def propose(self) -> LayerProgram | None:
        """The next program to run; None once the search is over or must first be told a result.

        The identity program comes first and is no simulation. No program is proposed twice.
        """
        root = self.nodes[ROOT_INDEX]
        if not self.verdicts:
            if root.program in self._pending:
                return None
            return self._ask([ROOT_INDEX])
        if self.simulations >= self.config.simulations or self._found_enough():
            return None
        while not root.exhausted:
            path = self._descend() if self._frontier is None else self._reach(self._frontier)
            if path is not None:
                self.simulations += 1
                return self._ask(path)
        return None

    def update(self, program: LayerProgram, *, correct: bool, margin: float) -> None:
        """Take the result of a proposed program back.

        Raises:
            ValueError: The program was not asked for, or was told already.
        """
        path = self._pending.pop(program, None)
        if path is None:
            raise ValueError(f"program {program} was not asked for, or its result was told already")
        self.verdicts[program] = Verdict(program=program, correct=correct, margin=margin)
        self._found_right |= correct
        worth = self._worths[program] = self._worth(correct, margin)
        self._learn(self.nodes[path[-1]], worth)
        if self._frontier is not None:
            self._frontier.tell(program, correct=correct, margin=margin)
        for index in path:
            node = self.nodes[index]
            node.value = max(node.value, worth) if self.config.backup == "max" else node.value + worth

    @property
    def done(self) -> bool:
        """True once nothing is left to ask and nothing to be told."""
        if self._pending or not self.verdicts:
            return False
        spent = self.simulations >= self.config.simulations
        return spent or self._found_enough() or self.nodes[ROOT_INDEX].exhausted

    # -- results ---------------------------------------------------------------------------

    @property
    def identity(self) -> Verdict:
        """What the untouched model said.

        Raises:
            ValueError: The identity program has not been told yet.
        """
        verdict = self.verdicts.get(self.nodes[ROOT_INDEX].program)
        if verdict is None:
            raise ValueError("the identity program has no result yet")
        return verdict

    def ranked(self) -> list[Verdict]:
        """The right programs within the budget, best first: shortest, then by the largest margin."""
        return ranked(self.verdicts.values(), self.config.budget)

    def best(self) -> Verdict | None:
        """The best right program within the budget; None if there is none."""
        return next(iter(self.ranked()), None)

    def pareto(self) -> list[Verdict]:
        """The programs within the budget, right or wrong, that none as short or shorter beats; shortest first."""
        return unbeaten(self.verdicts.values(), self.config.budget)

    def to_json(self) -> list[dict[str, Any]]:
        """Every node with its statistics, for golden tests and for looking at a tree."""
        return [
            {
                "program": str(node.program),
                "visits": node.visits,
                "value": node.value,
                "children": list(node.children),
            }
            for node in self.nodes
        ]

    # -- inside ----------------------------------------------------------------------------

    def _ask(self, path: list[int]) -> LayerProgram:
        for index in path:
            self.nodes[index].visits += 1
        program = self.nodes[path[-1]].program
        self._pending[program] = path
        if self._frontier is not None:
            self._frontier.ask(program)
            self._frontier.extend(path[-1], self._promising_edits(program))
        return program

    @property
    def _price(self) -> float:
        """Of a program as long as the model, at this moment."""
        waits = self.config.right_first and not self._found_right
        return 0.0 if waits else self.config.length_penalty

    def _worth(self, correct: bool, margin: float) -> float:
        if correct or self.config.margin_scale is None:
            return float(correct)
        # tanh does not overflow, whatever the margin.
        return 0.5 + 0.5 * math.tanh(0.5 * margin / self.config.margin_scale)

    def _learn(self, node: Node, worth: float) -> None:
        """Note what the edit that made a node gained over its parent, where that is known by now."""
        if node.parent == NO_PARENT:
            return
        before = self._worths.get(self.nodes[node.parent].program)
        if before is not None:
            self._gains.setdefault(node.edit, []).append(worth - before)

    def _found_enough(self) -> bool:
        if not self.config.stop_when_found:
            return False
        best, identity = self.best(), self.identity
        return best is not None and (not identity.correct or len(best.program) < self.num_layers)

    def _descend(self) -> list[int] | None:
        """Walk from the root to a new node; None where the way ended in an exhausted one."""
        path = [ROOT_INDEX]
        while True:
            index = path[-1]
            child = self._expand(index)
            if child is not None:
                return [*path, child]
            open_children = [c for c in self.nodes[index].children if not self.nodes[c].exhausted]
            if not open_children:
                self.nodes[index].exhausted = True
                return None
            path.append(self._select(self.nodes[index], open_children))

    def _reach(self, frontier: GuidedSelection) -> list[int] | None:
        """Make a node of the frontier's best program; None, and the search is over, where nothing can be gained."""
        best = self.best()
        while (chosen := frontier.most_promising(None if best is None else len(best.program))) is not None:
            child = self._add_child(chosen.parent, chosen.edit)
            program = chosen.edit.program
            if len(program) <= self._longest:
                return self._way_to(child)
            # Too long for an answer: it is passed on the way to shorter ones, without a run.
            frontier.drop(program)
            frontier.extend(child, self._promising_edits(program))
        self.nodes[ROOT_INDEX].exhausted = True
        return None

    def _way_to(self, index: int) -> list[int]:
        path = [index]
        while (parent := self.nodes[path[-1]].parent) != NO_PARENT:
            path.append(parent)
        return path[::-1]

    def _promising_edits(self, program: LayerProgram) -> list[Edit]:
        """Edits to programs that could be the best, or that lead there where the budget is far."""
        best = self.best() if self.verdicts else None
        shortest = self.max_program_length + 1 if best is None else len(best.program)
        towards = max(self._longest, len(program) - 1)
        edits = self._actions(program, self.max_program_length)
        return [edit for edit in edits if len(edit.program) <= towards and len(edit.program) < shortest]

    def _add_child(self, parent: int, edit: Edit) -> int:
        child = len(self.nodes)
        self.nodes.append(Node(edit.program, depth=self.nodes[parent].depth + 1, parent=parent, edit=edit.label))
        self._index[edit.program] = child
        self.nodes[parent].children.append(child)
        return child

    def _expand(self, index: int) -> int | None:
        """Give a node one new child, if its visits allow one more and an untried edit is left."""
        node = self.nodes[index]
        if node.untried is None:
            node.untried = self._actions(node.program, self.max_program_length)
        no_way_on = all(self.nodes[child].exhausted for child in node.children)
        allowed = self.config.widening * max(1, node.visits) ** self.config.widening_power
        # Only where it is asked for: a draw for nothing would change every other search.
        explores = bool(self.config.unexplored_child) and self._random.random() < self.config.unexplored_child
        while node.untried and (no_way_on or explores or len(node.children) < allowed):
            edit = self._draw(node)
            known = self._index.get(edit.program)
            if known is None:
                return self._add_child(index, edit)
            # An edge only ever leads deeper, which keeps the graph free of cycles: an edit that
            # undoes an earlier one is no way forward.
            if self.nodes[known].depth > node.depth:
                node.children.append(known)
                no_way_on = no_way_on and self.nodes[known].exhausted
        return None

    def _select(self, node: Node, children: list[int]) -> int:
        if self._random.random() < self.config.random_child:
            return children[int(self._random.random() * len(children))]
        log_visits = math.log(max(node.visits, 1))

        def ucb(index: int) -> float:
            child = self.nodes[index]
            visits = max(child.visits, 1)
            return (
                (child.value if self.config.backup == "max" else child.value / visits)
                + self.config.exploration * math.sqrt(log_visits / visits)
                - self._price * len(child.program) / self.num_layers
            )

        return max(children, key=ucb)

    def _draw(self, node: Node) -> Edit:
        """Take one untried edit out of a node: the most gainful known one, or any."""
        untried = node.untried
        assert untried
        chosen = None
        if self._gains and self._random.random() < self.config.recall:
            known = [index for index, edit in enumerate(untried) if edit.label in self._gains]
            chosen = max(known, key=lambda index: self._promise(node, untried[index]), default=None)
        if chosen is None:
            chosen = int(self._random.random() * len(untried))
        untried[chosen], untried[-1] = untried[-1], untried[chosen]
        return untried.pop()

    def _promise(self, node: Node, edit: Edit) -> float:
        """An edit's mean gain so far, with the layers that it saves at the UCB's price."""
        gains = self._gains[edit.label]
        saved = len(node.program) - len(edit.program)
        return sum(gains) / len(gains) + self._price * saved / self.num_layers

"""The search for one example, by ask and tell: ``propose`` returns a program to run, ``update`` takes its result.

The search depends on no model, example or process: any function from programs to results can evaluate.

    tree = SearchTree(num_layers=30, config=SearchConfig(), seed=stable_seed(0, "example-7"))
    while (program := tree.propose()) is not None:
        tree.update(program, correct=..., margin=...)
    tree.best()

A selector chooses the programs: by UCB, as the papers do (``ucb_selection``), or, where a prior from other examples is
there, by expected gain (``guided_selection``). The names of the steps are the textbook's: select, expand, backup.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import check_action_space, get_action_space
from pipeline.search.config import NO_PRIOR, SearchConfig
from pipeline.search.guided_selection import GuidedSelection
from pipeline.search.program_graph import ROOT_INDEX, Node, ProgramGraph
from pipeline.search.selector import MakeSelector, Selector
from pipeline.search.ucb_selection import UcbSelection
from pipeline.search.verdicts import Verdict, pareto_verdicts, ranked


def stable_seed(run_seed: int, example_id: str) -> int:
    """A seed for one example that is the same on every machine, actor and Python version."""
    digest = hashlib.sha256(f"{run_seed}\0{example_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def default_selector(*, num_layers: int, config: SearchConfig, seed: int, prior: Prior | None) -> Selector:
    """Guided selection where there is a prior, UCB otherwise."""
    if prior is None:
        return UcbSelection(config=config, seed=seed)
    return GuidedSelection(prior, config=config)


class SearchTree:
    """A search over the layer programs of one example.

    Several programs may be proposed before the first result comes: a visit counts from the moment that its program is
    proposed, so that parallel proposals spread out (a virtual loss).

    Args:
        num_layers: Depth L of the model.
        config: Configuration of the search.
        seed: State of the search's own random numbers; see ``stable_seed``.
        prior: The prior that was fitted to other examples; None for a search without a prior.
        selector: Makes the part that chooses the programs.

    Raises:
        ValueError: The prior is for a model of another depth, or cannot distinguish the programs of the action space.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        config: SearchConfig,
        seed: int,
        prior: Prior | None = None,
        selector: MakeSelector = default_selector,
    ) -> None:
        if prior is not None and prior.num_layers != num_layers:
            raise ValueError(f"the prior is for {prior.num_layers} layers, the model has {num_layers}")
        space = get_action_space(config.action_space)
        if prior is not None and not space.keeps_order:
            raise ValueError(NO_PRIOR.format(space=config.action_space))
        self.config = config
        self.num_layers = num_layers
        self.verdicts: dict[LayerProgram, Verdict] = {}
        self.simulations = 0
        max_length = config.max_layers(num_layers)
        check_action_space(config.action_space, num_layers=num_layers, max_length=max_length)
        self._graph = ProgramGraph(num_layers=num_layers, max_length=max_length, edits=space.edits)
        self._selector = selector(num_layers=num_layers, config=config, seed=seed, prior=prior)
        self._pending: dict[LayerProgram, list[int]] = {}

    # -- ask and tell ----------------------------------------------------------------------

    def propose(self) -> LayerProgram | None:
        """The next program to run; None once the search is over or first needs a result.

        The identity program comes first and is no simulation. No program is proposed twice.
        """
        if not self.verdicts:
            return None if self._pending else self._propose([ROOT_INDEX])
        if self._spent():
            return None
        while not self._graph.root.exhausted:
            path = self._selector.select(self._graph)
            if path is not None:
                self.simulations += 1
                return self._propose(path)
        return None

    def update(self, program: LayerProgram, *, correct: bool, margin: float) -> None:
        """Take the result of a proposed program.

        Raises:
            ValueError: The program was not proposed, or has its result already.
        """
        path = self._pending.pop(program, None)
        if path is None:
            raise ValueError(f"program {program} was not proposed, or has its result already")
        verdict = Verdict(program=program, correct=correct, margin=margin)
        reward = self._reward(verdict)
        self.verdicts[program] = verdict
        self._selector.note_result(self._graph, path, verdict, reward)
        self._backup(path, reward)

    @property
    def done(self) -> bool:
        """True once there is nothing to propose and no result to come."""
        if self._pending or not self.verdicts:
            return False
        return self._spent() or self._graph.root.exhausted

    # -- results ---------------------------------------------------------------------------

    @property
    def nodes(self) -> list[Node]:
        """Every program that was found, the identity program first."""
        return self._graph.nodes

    @property
    def identity(self) -> Verdict:
        """The identity program's result: the base model's.

        Raises:
            ValueError: The identity program has no result yet.
        """
        verdict = self.verdicts.get(self._graph.root.program)
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
        """The Pareto set over (length, correctness, margin) within the budget, shortest first."""
        return pareto_verdicts(self.verdicts.values(), self.config.budget)

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

    def _propose(self, path: list[int]) -> LayerProgram:
        for index in path:
            self.nodes[index].visits += 1
        program = self.nodes[path[-1]].program
        self._pending[program] = path
        self._selector.note_proposal(self._graph, path)
        return program

    def _backup(self, path: list[int], reward: float) -> None:
        for index in path:
            node = self.nodes[index]
            node.value = max(node.value, reward) if self.config.backup == "max" else node.value + reward

    def _reward(self, verdict: Verdict) -> float:
        if verdict.correct or self.config.margin_scale is None:
            return float(verdict.correct)
        # tanh does not overflow, whatever the margin.
        return 0.5 + 0.5 * math.tanh(0.5 * verdict.margin / self.config.margin_scale)

    def _spent(self) -> bool:
        """Whether the simulations are used up, or the papers' rule says that enough was found."""
        if self.simulations >= self.config.simulations:
            return True
        if not self.config.stop_when_found:
            return False
        best, identity = self.best(), self.identity
        return best is not None and (not identity.correct or len(best.program) < self.num_layers)

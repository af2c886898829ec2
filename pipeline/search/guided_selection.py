"""The search that a prior guides: the next program is the one expected to save most layers.

Every program one edit away from any in the graph is a candidate: the search is best first, not a walk from the root.
"""

from __future__ import annotations

from pipeline.prior import Prior
from pipeline.program import whole_layers
from pipeline.search.actions import Edit
from pipeline.search.candidate_set import CandidateSet
from pipeline.search.config import SearchConfig
from pipeline.search.program_graph import ProgramGraph
from pipeline.search.verdicts import Verdict


class GuidedSelection:
    """Chooses the candidate with the highest expected gain.

    Args:
        prior: The prior that was fitted to other examples.
        config: Configuration of the search.
    """

    def __init__(self, prior: Prior, *, config: SearchConfig) -> None:
        self._budget = config.budget
        #: Most layers of an acceptable program. Longer ones only lead to shorter ones.
        self._longest = max(1, whole_layers(config.budget, prior.num_layers))
        self._candidates = CandidateSet(prior, longest=self._longest, depth_penalty=config.caution)
        self._best_length: int | None = None

    def select(self, graph: ProgramGraph) -> list[int] | None:
        """Make the best candidate's node; None, and the search is over, where no candidate could gain."""
        while (chosen := self._candidates.best(self._best_length)) is not None:
            child = graph.expand(chosen.parent, chosen.edit)
            program = chosen.edit.program
            if len(program) <= self._longest:
                return graph.path_to(child)
            # Too long for an answer: it leads to shorter ones, and is not evaluated.
            self._candidates.drop(program)
            self._candidates.extend(child, self._promising_edits(graph, child))
        graph.root.exhausted = True
        return None

    def note_proposal(self, graph: ProgramGraph, path: list[int]) -> None:
        """Expect the predicted result, and take the program's neighbours as candidates."""
        index = path[-1]
        self._candidates.expect(graph.nodes[index].program)
        self._candidates.extend(index, self._promising_edits(graph, index))

    def note_result(self, graph: ProgramGraph, path: list[int], verdict: Verdict, reward: float) -> None:
        """Correct the predictions by the result, and note the shortest right program."""
        length = len(verdict.program)
        if verdict.correct and verdict.program.within(self._budget):
            self._best_length = length if self._best_length is None else min(self._best_length, length)
        self._candidates.update(verdict.program, correct=verdict.correct, margin=verdict.margin)

    def _promising_edits(self, graph: ProgramGraph, index: int) -> list[Edit]:
        """Edits to programs that could be the best, or that lead there where the budget is far."""
        program = graph.nodes[index].program
        shortest = graph.max_length + 1 if self._best_length is None else self._best_length
        towards = max(self._longest, len(program) - 1)
        return [edit for edit in graph.edits(program) if len(edit.program) <= towards and len(edit.program) < shortest]

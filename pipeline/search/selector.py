"""Selectors choose the next program of a search: search methods differ in their selector alone."""

from __future__ import annotations

from typing import Protocol

from pipeline.prior import Prior
from pipeline.search.config import SearchConfig
from pipeline.search.program_graph import ProgramGraph
from pipeline.search.verdicts import Verdict


class Selector(Protocol):
    """Chooses programs for one example. It sees every proposal and every result, in the order in which they come."""

    def select(self, graph: ProgramGraph) -> list[int] | None:
        """Choose a program that was not proposed yet, and make its node with ``graph.expand``.

        Returns:
            The nodes from the root to the new one; None where none was found this time. Where none can be found any
            more, the root is marked as exhausted; otherwise ``select`` is called again.
        """
        ...

    def note_proposal(self, graph: ProgramGraph, path: list[int]) -> None:
        """The program at the end of a path is being evaluated, the identity program's first of all."""
        ...

    def note_result(self, graph: ProgramGraph, path: list[int], verdict: Verdict, reward: float) -> None:
        """The program at the end of a path was evaluated.

        Args:
            graph: The programs found.
            path: The path under which it was proposed.
            verdict: The result of the program.
            reward: The result as one number from 0 to 1, see ``SearchConfig.margin_scale``.
        """
        ...


class MakeSelector(Protocol):
    """Makes the selector of one example's search, such as a selector's class or a function."""

    def __call__(self, *, num_layers: int, config: SearchConfig, seed: int, prior: Prior | None) -> Selector:
        """Make it.

        Args:
            num_layers: Depth L of the model.
            config: Configuration of the search.
            seed: State of the selector's own random numbers.
            prior: The prior that was fitted to other examples; None for a search without a prior.
        """
        ...

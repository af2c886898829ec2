"""The searches of a work group: many trees over one frozen model.

The trees of a group advance in step, and the programs that they propose run in one call. Nothing outside the group
takes part, so the group's rows are the same on every actor, at any time and beside any other group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pipeline.prior import Evaluation, Prior
from pipeline.program import LayerProgram
from pipeline.search.config import SearchConfig
from pipeline.search.selector import MakeSelector
from pipeline.search.tree import SearchTree, default_selector, stable_seed


class Searchable(Protocol):
    """The part of an example that a group's search uses."""

    @property
    def example_id(self) -> str:
        """The example's id: with the run's seed, it decides the random numbers of the example's search."""
        ...


class Evaluated(Protocol):
    """The part of a program's result on an example that a group's search uses."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        ...

    @property
    def margin(self) -> float:
        """Distance of the logits from the opposite result; positive where the answer is right."""
        ...


Prepared = TypeVar("Prepared", bound=Searchable)
Outcome = TypeVar("Outcome", bound=Evaluated)
Prepared_contra = TypeVar("Prepared_contra", contravariant=True)
Outcome_co = TypeVar("Outcome_co", covariant=True)


class Scorer(Protocol[Prepared_contra, Outcome_co]):
    """Evaluates programs on examples, such as ``partial(task.score, model)``."""

    def __call__(
        self, examples: Sequence[Prepared_contra], programs: Sequence[LayerProgram], /, *, need_response: bool
    ) -> Sequence[Outcome_co]:
        """The result of each program on the example at its position.

        Args:
            examples: The examples.
            programs: One program for each.
            need_response: Whether wrong answers are written to their end too, for the row.
        """
        ...


class SearchSettings(Protocol):
    """The part of a run's settings that a group's search uses."""

    @property
    def search(self) -> SearchConfig:
        """Configuration of each example's search."""
        ...

    @property
    def seed(self) -> int:
        """Seed of every search."""
        ...

    @property
    def leaves(self) -> int:
        """Programs that a tree proposes at once."""
        ...


@dataclass(slots=True)
class ExampleSearch(Generic[Prepared, Outcome]):
    """An example with its search.

    Attributes:
        prepared: The example as the model reads it.
        tree: The search of the example.
        outcomes: The result of each program, in the order in which they were evaluated.
    """

    prepared: Prepared
    tree: SearchTree
    outcomes: dict[LayerProgram, Outcome] = field(default_factory=dict)

    def evaluations(self) -> list[Evaluation]:
        """Every result, as a prior is fitted on it."""
        return [
            Evaluation(
                example_id=self.prepared.example_id, program=program, correct=outcome.correct, margin=outcome.margin
            )
            for program, outcome in self.outcomes.items()
        ]

    def improvements(self) -> list[list[int]]:
        """Pairs (evaluation number, new best length), wherever the shortest right program became shorter."""
        steps: list[list[int]] = []
        for number, (program, outcome) in enumerate(self.outcomes.items()):
            acceptable = outcome.correct and program.within(self.tree.config.budget)
            if acceptable and (not steps or len(program) < steps[-1][1]):
                steps.append([number, len(program)])
        return steps


def search_group(
    examples: Sequence[Prepared],
    *,
    num_layers: int,
    config: SearchSettings,
    score: Scorer[Prepared, Outcome],
    prior: Prior | None = None,
    selector: MakeSelector = default_selector,
    on_step: Callable[[int], None] = lambda programs: None,
) -> list[ExampleSearch[Prepared, Outcome]]:
    """Search every example of a work group.

    Args:
        examples: The group's examples.
        num_layers: Depth L of the model.
        config: The configuration, the seed and the number of parallel proposals.
        score: Evaluates programs on examples.
        prior: The prior that was fitted to other examples; None for a search without a prior.
        selector: Makes the selector of one example's programs.
        on_step: Called after each step with the number of programs that it evaluated.

    Returns:
        The examples with their finished searches.
    """
    group: list[ExampleSearch[Prepared, Outcome]] = [
        ExampleSearch(
            example,
            SearchTree(
                num_layers=num_layers,
                config=config.search,
                seed=stable_seed(config.seed, example.example_id),
                prior=prior,
                selector=selector,
            ),
        )
        for example in examples
    ]
    first = True
    while True:
        proposed = [(item, program) for item in group for program in _proposals(item.tree, config.leaves)]
        if not proposed:
            break
        # The identity program's response is always needed in full: its row says what the base model wrote.
        outcomes = score(
            [item.prepared for item, _ in proposed], [program for _, program in proposed], need_response=first
        )
        first = False
        for (item, program), outcome in zip(proposed, outcomes, strict=True):
            item.outcomes[program] = outcome
            item.tree.update(program, correct=outcome.correct, margin=outcome.margin)
        on_step(len(proposed))
    return group


def _proposals(tree: SearchTree, most: int) -> list[LayerProgram]:
    """The programs that a tree proposes at once: the identity alone at first, then up to ``most``."""
    programs: list[LayerProgram] = []
    while len(programs) < most and (program := tree.propose()) is not None:
        programs.append(program)
    return programs

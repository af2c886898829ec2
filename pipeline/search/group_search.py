"""A work group's searches: many trees over one frozen model.

The trees of a group advance in step, and the programs that they propose run in one call. Nothing
outside the group takes part, so its rows are the same whoever runs it, when, and beside what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from pipeline.prior import Evaluation, Prior
from pipeline.program import LayerProgram
from pipeline.search.config import SearchConfig
from pipeline.search.tree import SearchTree, stable_seed


class Searchable(Protocol):
    """What a group's search asks of a question."""

    @property
    def example_id(self) -> str:
        """Names it, and with the run's seed decides its search's random numbers."""
        ...


class Evaluated(Protocol):
    """What a group's search asks of what a program made of a question."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        ...

    @property
    def margin(self) -> float:
        """How far the verdict is from turning."""
        ...


Question = TypeVar("Question", bound=Searchable)
Outcome = TypeVar("Outcome", bound=Evaluated)
#: From questions and their programs to outcomes; the last argument asks for responses to the end.
Score = Callable[[Sequence[Question], Sequence[LayerProgram], bool], list[Outcome]]


class SearchSettings(Protocol):
    """What a group's searches ask of a run's settings."""

    @property
    def search(self) -> SearchConfig:
        """What the search of each question may do."""
        ...

    @property
    def seed(self) -> int:
        """Of every search."""
        ...

    @property
    def leaves(self) -> int:
        """Programs that a tree proposes at once."""
        ...


@dataclass(slots=True)
class ExampleSearch(Generic[Question, Outcome]):
    """One question on its way through its tree.

    Attributes:
        question: The question.
        tree: Its search.
        outcomes: What each program made of it, in the order in which they were tried.
    """

    question: Question
    tree: SearchTree
    outcomes: dict[LayerProgram, Outcome] = field(default_factory=dict)

    def evaluations(self) -> list[Evaluation]:
        """Every verdict, as a prior learns from it."""
        return [
            Evaluation(
                example_id=self.question.example_id, program=program, correct=outcome.correct, margin=outcome.margin
            )
            for program, outcome in self.outcomes.items()
        ]

    def improvements(self) -> list[list[int]]:
        """After how many programs the best one became how short: pairs, of growing number and falling length."""
        steps: list[list[int]] = []
        for number, (program, outcome) in enumerate(self.outcomes.items()):
            acceptable = outcome.correct and program.within(self.tree.config.budget)
            if acceptable and (not steps or len(program) < steps[-1][1]):
                steps.append([number, len(program)])
        return steps


def search_group(
    questions: Sequence[Question],
    *,
    num_layers: int,
    config: SearchSettings,
    score: Score[Question, Outcome],
    prior: Prior | None = None,
    tree: type[SearchTree] = SearchTree,
    on_step: Callable[[int], None] = lambda programs: None,
) -> list[ExampleSearch[Question, Outcome]]:
    """Search every question of a work group.

    Args:
        questions: The group's questions.
        num_layers: Depth L of the model.
        config: How to search.
        score: Runs programs on questions.
        prior: What other questions taught.
        tree: How a question is searched.
        on_step: Told how many programs each step ran.

    Returns:
        The questions with their finished searches.
    """
    group: list[ExampleSearch[Question, Outcome]] = [
        ExampleSearch(
            question,
            tree(
                num_layers=num_layers,
                config=config.search,
                seed=stable_seed(config.seed, question.example_id),
                prior=prior,
            ),
        )
        for question in questions
    ]
    first = True
    while True:
        asked = [(item, program) for item in group for program in _proposals(item.tree, config.leaves)]
        if not asked:
            break
        # The identity's answer is always told in full: its row says what the base model did.
        outcomes = score([item.question for item, _ in asked], [program for _, program in asked], first)
        first = False
        for (item, program), outcome in zip(asked, outcomes, strict=True):
            item.outcomes[program] = outcome
            item.tree.update(program, correct=outcome.correct, margin=outcome.margin)
        on_step(len(asked))
    return group


def _proposals(tree: SearchTree, most: int) -> list[LayerProgram]:
    """What a tree wants to know next: the identity alone at first, then up to ``most`` programs."""
    programs: list[LayerProgram] = []
    while len(programs) < most and (program := tree.propose()) is not None:
        programs.append(program)
    return programs

"""Arithmetic: examples made from a seed, without data. Each prompt shows a few solved problems before its own.

The kinds of problems come in turn; ``pipeline.tasks.arithmetic_kinds`` has them all. The embedded model gets part of
each default kind right, so there is something to shorten and something to correct.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

from pipeline.errors import UserError
from pipeline.tasks.arithmetic_kinds import DEFAULT_KINDS, KINDS, NUM_WORKED, Problem, ProblemKind
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.task import Task
from pipeline.tasks.task_options import TaskOptions
from pipeline.tasks.types import DataRequest, Example, Rendering

NAME = "arithmetic"
SPLITS = ("train", "test")
DEFAULT_LIMIT = 192


def arithmetic_task(options: TaskOptions) -> Task:
    """The task ``arithmetic`` with these options.

    Raises:
        UserError: A kind is unknown, or is named twice.
    """
    kinds = kinds_of(options.kinds)
    return Task(
        name=NAME,
        summary=f"problems of {len(DEFAULT_KINDS)} kinds with worked examples, made from the seed (no data needed)",
        read=partial(read, kinds=kinds),
        scoring=ExactMatch(max_new_tokens=8),
        chat=False,
        needs_data=False,
        most_renderings=NUM_WORKED,
    )


def kinds_of(names: str | None) -> tuple[ProblemKind, ...]:
    """The kinds of these names, which commas separate; the default ones for None.

    Raises:
        UserError: A kind is unknown, or is named twice.
    """
    chosen = list(DEFAULT_KINDS) if names is None else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in KINDS:
            raise UserError(f"--kinds: there is no kind {name!r}; choose of: {', '.join(KINDS)}")
    if len(set(chosen)) < len(chosen):
        raise UserError(f"--kinds names a kind twice: {names}")
    return tuple(KINDS[name] for name in chosen)


def read(request: DataRequest, *, kinds: Sequence[ProblemKind]) -> list[Example]:
    """Make the examples of one split, the kinds in turn, each in an order drawn from the seed.

    The solved problems of a prompt come from the training split alone, and are never the prompt's own.

    Raises:
        UserError: Data was given, or the split is unknown.
    """
    if request.data is not None:
        raise UserError(f"task {NAME!r} makes its own examples; leave --data out")
    if request.split not in SPLITS:
        raise UserError(f"task {NAME!r} has no split {request.split!r}; choose one of: {', '.join(SPLITS)}")
    limit = DEFAULT_LIMIT if request.limit is None else request.limit
    # Seeds that are text are hashed alike by every version of Python.
    rng = random.Random(f"arithmetic {request.split} {request.seed}")
    asked = [kind.asked(request.split) for kind in kinds]
    for problems in asked:
        rng.shuffle(problems)
    queues = [[(kind, problem) for problem in problems] for kind, problems in zip(kinds, asked, strict=True)]
    return [_example(kind, problem, request, rng) for _, (kind, problem) in zip(range(limit), _in_turn(queues))]


def _example(kind: ProblemKind, problem: Problem, request: DataRequest, rng: random.Random) -> Example:
    shown = kind.worked() or _solved(kind).sample(problem, rng)
    # The solved problems in another order are another rendering of the example.
    first, *others = (
        "\n".join([f"{one.text} {one.answer}" for one in (*shown[shift:], *shown[:shift])] + [problem.text])
        for shift in range(min(request.renderings, NUM_WORKED))
    )
    return Example(
        id=f"arithmetic-{request.split}-{kind.name}-{problem.name}",
        task=NAME,
        question=first,
        answer=problem.answer,
        renderings=tuple(Rendering(question=other, answer=problem.answer) for other in others),
    )


@dataclass(frozen=True)
class _SolvedProblems:
    """The problems of a former kind that prompts may show solved: those of the training split.

    Attributes:
        problems: The problems.
        places: The places of the problems with each key.
    """

    problems: list[Problem]
    places: dict[tuple[int, ...], list[int]]

    def sample(self, asked: Problem, rng: random.Random) -> list[Problem]:
        """Different ones, drawn from all but the one that is asked."""
        left_out = self.places.get(asked.key, [])
        drawn = rng.sample(range(len(self.problems) - len(left_out)), NUM_WORKED)
        for place in left_out:
            drawn = [number + (number >= place) for number in drawn]
        return [self.problems[number] for number in drawn]


@cache
def _solved(kind: ProblemKind) -> _SolvedProblems:
    problems = [problem for problem in kind.problems() if problem.split == "train"]
    places: dict[tuple[int, ...], list[int]] = {}
    for place, problem in enumerate(problems):
        places.setdefault(problem.key, []).append(place)
    return _SolvedProblems(problems, places)


def _in_turn(queues: list[list[tuple[ProblemKind, Problem]]]) -> Iterator[tuple[ProblemKind, Problem]]:
    """One problem of each queue in turn, until all queues are empty."""
    for position in range(max(len(queue) for queue in queues)):
        for queue in queues:
            if position < len(queue):
                yield queue[position]


ARITHMETIC = arithmetic_task(TaskOptions())

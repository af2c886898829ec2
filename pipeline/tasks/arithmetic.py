"""Arithmetic: examples made from a seed, without data. Each prompt shows a few solved problems before its own.

Three kinds in turn: sums of one-digit numbers, the times table, sums of two-digit numbers. The
embedded model gets part of each right, so there is something to shorten and something to correct.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from pipeline.errors import UserError
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.task import Task
from pipeline.tasks.types import DataRequest, Example, Rendering

SPLITS = ("train", "test")
DEFAULT_LIMIT = 192
NUM_WORKED = 4
#: One in this many problems is held out.
HOLD_OUT = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of two operands, with its value."""

    kind: str
    left: int
    right: int

    @property
    def text(self) -> str:
        sign = "*" if self.kind == "times-table" else "+"
        return f"{self.left} {sign} {self.right} ="

    @property
    def value(self) -> int:
        return self.left * self.right if self.kind == "times-table" else self.left + self.right

    @property
    def split(self) -> str:
        """The split, which is the same for both orders of the operands, so that 3 + 4 never trains what 4 + 3 tests."""
        low, high = sorted((self.left, self.right))
        digest = hashlib.sha256(f"{self.kind} {low} {high}".encode()).digest()
        return "test" if digest[0] % HOLD_OUT == 0 else "train"


KINDS: dict[str, tuple[range, range]] = {
    "sums": (range(10), range(10)),
    "times-table": (range(1, 11), range(1, 11)),
    "two-digit-sums": (range(10, 100), range(10, 100)),
}


def read(request: DataRequest) -> list[Example]:
    """Make the examples of one split, the kinds in turn, each in an order drawn from the seed.

    The solved problems of a prompt come from the training split alone, and are never the prompt's own.

    Raises:
        UserError: Data was given, or the split is unknown.
    """
    if request.data is not None:
        raise UserError("task 'arithmetic' makes its own examples; leave --data out")
    if request.split not in SPLITS:
        raise UserError(f"task 'arithmetic' has no split {request.split!r}; choose one of: {', '.join(SPLITS)}")
    limit = DEFAULT_LIMIT if request.limit is None else request.limit
    # Seeds that are text are hashed alike by every version of Python.
    rng = random.Random(f"arithmetic {request.split} {request.seed}")
    problems = {kind: [Problem(kind, a, b) for a, b in product(*ranges)] for kind, ranges in KINDS.items()}
    worked = {kind: [p for p in problems[kind] if p.split == "train"] for kind in KINDS}
    of_split = {kind: [p for p in problems[kind] if p.split == request.split] for kind in KINDS}
    for kind in KINDS:
        rng.shuffle(of_split[kind])

    examples = []
    for _, problem in zip(range(limit), _in_turn(list(of_split.values()))):
        candidates = [p for p in worked[problem.kind] if {p.left, p.right} != {problem.left, problem.right}]
        shown = rng.sample(candidates, NUM_WORKED)
        # The solved problems in another order are another rendering of the example.
        first, *others = (
            "\n".join([f"{p.text} {p.value}" for p in (*shown[shift:], *shown[:shift])] + [problem.text])
            for shift in range(min(request.renderings, NUM_WORKED))
        )
        sign = "x" if problem.kind == "times-table" else "+"
        examples.append(
            Example(
                id=f"arithmetic-{request.split}-{problem.kind}-{problem.left}{sign}{problem.right}",
                task="arithmetic",
                question=first,
                answer=str(problem.value),
                renderings=tuple(Rendering(question=other, answer=str(problem.value)) for other in others),
            )
        )
    return examples


def _in_turn(queues: list[list[Problem]]) -> Iterator[Problem]:
    """One problem of each queue in turn, until all queues are empty."""
    for position in range(max(len(queue) for queue in queues)):
        for queue in queues:
            if position < len(queue):
                yield queue[position]


ARITHMETIC = Task(
    name="arithmetic",
    summary="sums and times table with worked examples, made from the seed (no data needed)",
    read=read,
    scoring=ExactMatch(max_new_tokens=8),
    chat=False,
    needs_data=False,
    most_renderings=NUM_WORKED,
)

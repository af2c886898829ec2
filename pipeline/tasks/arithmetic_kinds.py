"""The kinds of problems of the arithmetic task: what each asks, how its problems are split, and which are shown solved.

A problem is a few numbers in a sentence. Every kind has a fixed set of problems, each of which belongs to one split,
whatever the seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

#: One in this many problems is held out.
HOLD_OUT = 4
#: Solved problems that a prompt shows.
NUM_WORKED = 4

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its answer.

    Attributes:
        name: Its numbers, as an example's id has them.
        key: Its numbers, the same for problems that are one question in another order.
        text: The text that ends where the answer begins.
        answer: The answer.
        split: ``train`` or ``test``.
    """

    name: str
    key: Numbers
    text: str
    answer: str
    split: str


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """A kind of problems.

    Attributes:
        name: Name of the kind.
        numbers: The numbers of each problem.
        text: The text of a problem's numbers.
        answer: The answer to a problem's numbers.
        symmetric: Whether a problem in another order of its numbers tells the answer to this one.
        sign: What stands between the numbers in an example's id.
        fixed_worked: Whether every prompt shows the same solved problems, which are never asked themselves, and no
            question is asked in two orders. The former kinds draw other problems for each question.
    """

    name: str
    numbers: Callable[[], Iterable[Numbers]]
    text: Callable[..., str]
    answer: Callable[..., int | str]
    symmetric: bool = False
    sign: str = "-"
    fixed_worked: bool = True

    def problems(self) -> tuple[Problem, ...]:
        """All problems of the kind."""
        return _problems(self)

    def worked(self) -> tuple[Problem, ...]:
        """The solved problems that every prompt shows, of the training split; none where they are drawn."""
        return _fixed_worked(self) if self.fixed_worked else ()

    def asked(self, split: str) -> list[Problem]:
        """The problems of a split that are asked: all but those that every prompt shows solved, each in one order.

        A router that trains on 3 + 4 is not to be judged on 4 + 3, so of the orders of a question one is left.
        """
        of_split = [problem for problem in self.problems() if problem.split == split]
        if not self.fixed_worked:
            return of_split
        shown = {problem.key for problem in self.worked()}
        kept: dict[Numbers, Problem] = {}
        for problem in of_split:
            other = kept.get(problem.key)
            if problem.key not in shown and (other is None or self._place(problem) < self._place(other)):
                kept[problem.key] = problem
        return list(kept.values())

    def _place(self, problem: Problem) -> bytes:
        """A problem's place in an order that has nothing to do with its numbers."""
        return hashlib.sha256(f"worked {self.name} {problem.name}".encode()).digest()

    def split_of(self, key: Numbers) -> str:
        """The split, the same for both orders of a sum's numbers, so that 3 + 4 never trains what 4 + 3 tests."""
        digest = hashlib.sha256(f"{self.name} {' '.join(map(str, key))}".encode()).digest()
        return "test" if digest[0] % HOLD_OUT == 0 else "train"


@cache
def _problems(kind: ProblemKind) -> tuple[Problem, ...]:
    found = []
    for numbers in kind.numbers():
        key = tuple(sorted(numbers)) if kind.symmetric else numbers
        found.append(
            Problem(
                name=kind.sign.join(map(str, numbers)),
                key=key,
                text=kind.text(*numbers),
                answer=str(kind.answer(*numbers)),
                split=kind.split_of(key),
            )
        )
    return tuple(found)


@cache
def _fixed_worked(kind: ProblemKind) -> tuple[Problem, ...]:
    """Each the first problem, in an order by hashes, of the answers that were shown least, and not the last one's."""
    left = sorted((problem for problem in kind.problems() if problem.split == "train"), key=kind._place)
    shown: list[Problem] = []
    while len(shown) < NUM_WORKED:
        times = Counter(problem.answer for problem in shown)
        last = shown[-1].answer if shown else None
        chosen = min(left, key=lambda problem: (times[problem.answer], problem.answer == last))
        shown.append(chosen)
        left = [problem for problem in left if problem.key != chosen.key]
    return tuple(shown)


def _all(*choices: Iterable[int]) -> Callable[[], Iterator[Numbers]]:
    return lambda: product(*choices)


def _different(numbers: range, count: int) -> Callable[[], Iterator[Numbers]]:
    return lambda: permutations(numbers, count)


def _each(numbers: range, *, past: int = 1, but: tuple[int, ...] = ()) -> Callable[[], Iterator[Numbers]]:
    """Numbers, without those whose remainders past a multiple of ``past`` are left out."""
    return lambda: ((number,) for number in numbers if number % past not in but)


def _both_orders(some: Iterable[int], others: Iterable[int]) -> Callable[[], Iterator[Numbers]]:
    return lambda: (pair for a, b in product(some, others) for pair in ((a, b), (b, a)))


def _claims() -> Iterator[Numbers]:
    """Sums with a right or a wrong total, about as many of each; no rule but the sum itself tells which.

    Both orders of a sum claim the same total, so that one of them is asked.
    """
    for a, b in product(range(1, 40), range(1, 40)):
        drawn = hashlib.sha256(f"claim {min(a, b)} {max(a, b)}".encode()).digest()
        yield a, b, a + b + (0 if drawn[0] % 2 else drawn[1] % 9 + 1)


def _steps(a: int, step: int) -> str:
    return f"{a}, {a + step}, {a + 2 * step},"


def _between(number: int, unit: int) -> str:
    below = number // unit * unit
    return f"{number} is between {below} and {below + unit}, and nearer to"


_OBJECTS = ("apples", "books", "coins", "stamps", "eggs", "pens", "cards", "shells")


def _objects(*numbers: int) -> str:
    """The objects of a story, which its numbers alone decide: with other objects it would be the same question."""
    drawn = hashlib.sha256(f"objects {sorted(numbers)}".encode()).digest()
    return _OBJECTS[drawn[0] % len(_OBJECTS)]


#: The kinds of runs from before there was a choice.
_FORMER = (
    ProblemKind(
        name="sums",
        numbers=_all(range(10), range(10)),
        text="{} + {} =".format,
        answer=lambda a, b: a + b,
        symmetric=True,
        sign="+",
        fixed_worked=False,
    ),
    ProblemKind(
        name="times-table",
        numbers=_all(range(1, 11), range(1, 11)),
        text="{} * {} =".format,
        answer=lambda a, b: a * b,
        symmetric=True,
        sign="x",
        fixed_worked=False,
    ),
    ProblemKind(
        name="two-digit-sums",
        numbers=_all(range(10, 100), range(10, 100)),
        text="{} + {} =".format,
        answer=lambda a, b: a + b,
        symmetric=True,
        sign="+",
        fixed_worked=False,
    ),
)
#: The kinds of new runs. The embedded model is right on 15 % to 85 % of each. No two of them ask one calculation, in
#: words or without: 12 * 3 as an example of one kind would tell of 12 * 3 in the other.
_DEFAULT = (
    ProblemKind(
        name="small-differences",
        numbers=_all(range(11, 300), range(1, 4)),
        text="{} - {} =".format,
        answer=lambda a, b: a - b,
    ),
    ProblemKind(
        name="products",
        numbers=_all(range(11, 100, 2), range(2, 10)),
        text="{} * {} =".format,
        answer=lambda a, b: a * b,
        sign="x",
    ),
    ProblemKind(
        name="round-products",
        numbers=_both_orders([*range(20, 100, 10), *range(100, 1000, 100), *range(1000, 10000, 1000)], range(2, 10)),
        text="{} * {} =".format,
        answer=lambda a, b: a * b,
        symmetric=True,
        sign="x",
    ),
    ProblemKind(
        name="three-sums",
        numbers=_all(range(1, 10), range(1, 10), range(1, 10)),
        text="Add three numbers: {} + {} + {} =".format,
        answer=lambda a, b, c: a + b + c,
        symmetric=True,
        sign="+",
    ),
    ProblemKind(
        name="stepwise-sums",
        numbers=_all(range(5, 20), range(5, 20), range(5, 20)),
        text=lambda a, b, c: f"{a} + {b} + {c} = {a + b} + {c} =",
        answer=lambda a, b, c: a + b + c,
        symmetric=True,
        sign="+",
    ),
    ProblemKind(
        name="sequences",
        numbers=_all(range(1, 1000), (1, 2, 5, 10)),
        text=_steps,
        answer=lambda a, step: a + 3 * step,
    ),
    ProblemKind(
        name="descents",
        numbers=_all(range(40, 1000), (1, 2, 5, 10)),
        text=lambda a, step: _steps(a, -step),
        answer=lambda a, step: a - 3 * step,
    ),
    ProblemKind(
        name="predecessors",
        numbers=_each(range(10, 5000)),
        text="The number before {} is".format,
        answer=lambda a: a - 1,
    ),
    ProblemKind(
        name="between",
        numbers=_each(range(10, 2000)),
        text=lambda a: f"The number between {a} and {a + 2} is",
        answer=lambda a: a + 1,
    ),
    ProblemKind(
        name="next-tens",
        numbers=_each(range(11, 2000)),
        text="The next ten after {} is".format,
        answer=lambda a: a // 10 * 10 + 10,
    ),
    ProblemKind(
        name="rounded-tens",
        numbers=_each(range(11, 1000), past=10, but=(0, 5)),
        text=lambda a: _between(a, 10),
        answer=lambda a: (a + 5) // 10 * 10,
    ),
    ProblemKind(
        name="rounded-hundreds",
        numbers=_each(range(101, 2000), past=100, but=(0, 50)),
        text=lambda a: _between(a, 100),
        answer=lambda a: (a + 50) // 100 * 100,
    ),
    ProblemKind(
        name="larger",
        numbers=_different(range(10, 100), 2),
        text="The larger of {} and {} is".format,
        answer=max,
        symmetric=True,
    ),
    ProblemKind(
        name="smaller",
        numbers=_different(range(10, 100), 2),
        text="The smaller of {} and {} is".format,
        answer=min,
        symmetric=True,
    ),
    ProblemKind(
        name="largest-of-three",
        numbers=_different(range(10, 34), 3),
        text="The largest of {}, {} and {} is".format,
        answer=max,
        symmetric=True,
    ),
    ProblemKind(
        name="smallest-of-three",
        numbers=_different(range(10, 34), 3),
        text="The smallest of {}, {} and {} is".format,
        answer=min,
        symmetric=True,
    ),
    ProblemKind(
        name="comparisons",
        numbers=_different(range(10, 100), 2),
        text="{} > {}:".format,
        answer=lambda a, b: "Yes" if a > b else "No",
        symmetric=True,
    ),
    ProblemKind(
        name="true-or-false",
        numbers=_claims,
        text="{} + {} = {}:".format,
        answer=lambda a, b, c: "true" if a + b == c else "false",
        symmetric=True,
    ),
    ProblemKind(
        name="finds",
        numbers=_each(range(3, 1000)),
        text=lambda a: f"Ann has {a} {_objects(a)} and finds one more. Now she has",
        answer=lambda a: a + 1,
    ),
    ProblemKind(
        name="gains",
        numbers=_all(range(11, 100), range(2, 10)),
        text=lambda a, b: f"Ann has {a} {_objects(a, b)} and gets {b} more: {a} + {b} =",
        answer=lambda a, b: a + b,
    ),
    ProblemKind(
        name="losses",
        numbers=_all(range(10, 100), range(4, 10)),
        text=lambda a, b: f"Ann has {a} {_objects(a, b)} and gives {b} away: {a} - {b} =",
        answer=lambda a, b: a - b,
    ),
    ProblemKind(
        name="groups",
        numbers=_all(range(2, 10), [b for b in range(6, 100, 2) if b % 10]),
        text=lambda a, b: f"There are {a} bags with {b} {_objects(a, b)} each: {a} * {b} =",
        answer=lambda a, b: a * b,
        symmetric=True,
    ),
)

#: Every kind, by its name.
KINDS = {kind.name: kind for kind in (*_FORMER, *_DEFAULT)}
FORMER_KINDS = tuple(kind.name for kind in _FORMER)
DEFAULT_KINDS = tuple(kind.name for kind in _DEFAULT)


def kind_of(example_id: str) -> str | None:
    """The kind of an arithmetic example by its id; None for an example of another task."""
    begins = [
        name for name in KINDS for split in ("train", "test") if example_id.startswith(f"arithmetic-{split}-{name}-")
    ]
    return max(begins, key=len, default=None)

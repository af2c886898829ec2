"""The kinds of problems of the arithmetic task: what each asks, and how its problems are split.

A problem is a few numbers in a sentence. Every kind has a fixed set of problems, each of which belongs to one split,
whatever the seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

#: One in this many problems is held out.
HOLD_OUT = 4

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
        symmetric: Whether the order of the numbers makes no other question.
        sign: What stands between the numbers in an example's id.
    """

    name: str
    numbers: Callable[[], Iterator[Numbers]]
    text: Callable[..., str]
    answer: Callable[..., int | str]
    symmetric: bool = False
    sign: str = "-"

    def problems(self) -> tuple[Problem, ...]:
        """All problems of the kind."""
        return _problems(self)

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


def _all(*ranges: range) -> Callable[[], Iterator[Numbers]]:
    return lambda: product(*ranges)


def _different(numbers: range, count: int) -> Callable[[], Iterator[Numbers]]:
    return lambda: permutations(numbers, count)


def _descending(numbers: range) -> Callable[[], Iterator[Numbers]]:
    return lambda: ((a, b) for a, b in product(numbers, numbers) if a > b)


def _each(numbers: range) -> Callable[[], Iterator[Numbers]]:
    return lambda: ((number,) for number in numbers)


def _claims() -> Iterator[Numbers]:
    """Sums with a right or a wrong total, about as many of each; no rule but the sum itself tells which."""
    for a, b in product(range(10, 60), range(1, 40)):
        drawn = hashlib.sha256(f"claim {a} {b}".encode()).digest()
        yield a, b, a + b + (0 if drawn[0] % 2 else drawn[1] % 9 + 1)


_OBJECTS = ("apples", "books", "coins", "stamps", "eggs", "pens", "cards", "shells")

#: Every kind, by its name.
KINDS: dict[str, ProblemKind] = {
    kind.name: kind
    for kind in (
        ProblemKind(
            name="sums",
            numbers=_all(range(10), range(10)),
            text="{} + {} =".format,
            answer=lambda a, b: a + b,
            symmetric=True,
            sign="+",
        ),
        ProblemKind(
            name="times-table",
            numbers=_all(range(1, 11), range(1, 11)),
            text="{} * {} =".format,
            answer=lambda a, b: a * b,
            symmetric=True,
            sign="x",
        ),
        ProblemKind(
            name="two-digit-sums",
            numbers=_all(range(10, 100), range(10, 100)),
            text="{} + {} =".format,
            answer=lambda a, b: a + b,
            symmetric=True,
            sign="+",
        ),
        ProblemKind(
            name="differences",
            numbers=_descending(range(10, 100)),
            text="{} - {} =".format,
            answer=lambda a, b: a - b,
        ),
        ProblemKind(
            name="small-differences",
            numbers=_all(range(11, 400), range(1, 10)),
            text="{} - {} =".format,
            answer=lambda a, b: a - b,
        ),
        ProblemKind(
            name="products",
            numbers=_all(range(11, 400), range(2, 10)),
            text="{} * {} =".format,
            answer=lambda a, b: a * b,
            sign="x",
        ),
        ProblemKind(
            name="quotients",
            numbers=_all(range(2, 400), range(2, 10)),
            text=lambda a, b: f"{a * b} / {b} =",
            answer=lambda a, b: a,
        ),
        ProblemKind(
            name="three-sums",
            numbers=_all(range(1, 21), range(1, 21), range(1, 21)),
            text="{} + {} + {} =".format,
            answer=lambda a, b, c: a + b + c,
            symmetric=True,
            sign="+",
        ),
        ProblemKind(
            name="small-sums",
            numbers=_all(range(11, 400), range(1, 10)),
            text="{} + {} =".format,
            answer=lambda a, b: a + b,
            sign="+",
        ),
        ProblemKind(
            name="sequences",
            numbers=_all(range(1, 150), range(2, 26)),
            text=lambda a, step: ", ".join(str(a + step * index) for index in range(4)) + ",",
            answer=lambda a, step: a + 4 * step,
        ),
        ProblemKind(
            name="descents",
            numbers=_all(range(60, 200), range(2, 15)),
            text=lambda a, step: ", ".join(str(a - step * index) for index in range(4)) + ",",
            answer=lambda a, step: a - 4 * step,
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
            name="doubles",
            numbers=_each(range(3, 4000)),
            text="Twice {} is".format,
            answer=lambda a: 2 * a,
        ),
        ProblemKind(
            name="halves",
            numbers=_each(range(3, 4000)),
            text=lambda a: f"Half of {2 * a} is",
            answer=lambda a: a,
        ),
        ProblemKind(
            name="tens",
            numbers=lambda: ((a,) for a in range(11, 4000) if a % 10 not in (0, 5)),
            text="{} rounded to the nearest ten is".format,
            answer=lambda a: (a + 5) // 10 * 10,
        ),
        ProblemKind(
            name="hundreds",
            numbers=lambda: ((a,) for a in range(101, 5000) if a % 100 not in (0, 50)),
            text="{} rounded to the nearest hundred is".format,
            answer=lambda a: (a + 50) // 100 * 100,
        ),
        ProblemKind(
            name="comparisons",
            numbers=_different(range(10, 100), 2),
            text="Is {} more than {}?".format,
            answer=lambda a, b: "Yes" if a > b else "No",
        ),
        ProblemKind(
            name="signs",
            numbers=_different(range(10, 100), 2),
            text="{} is more or less than {}:".format,
            answer=lambda a, b: "more" if a > b else "less",
        ),
        ProblemKind(
            name="true-or-false",
            numbers=_claims,
            text="{} + {} = {} is".format,
            answer=lambda a, b, c: "true" if a + b == c else "false",
        ),
        ProblemKind(
            name="odd-or-even",
            numbers=_each(range(10, 4000)),
            text="The number {} is".format,
            answer=lambda a: "odd" if a % 2 else "even",
        ),
        ProblemKind(
            name="last-digits",
            numbers=_each(range(10, 4000)),
            text="The last digit of {} is".format,
            answer=lambda a: a % 10,
        ),
        ProblemKind(
            name="digit-sums",
            numbers=_each(range(10, 4000)),
            text="The sum of the digits of {} is".format,
            answer=lambda a: sum(map(int, str(a))),
        ),
        ProblemKind(
            name="remainders",
            numbers=_all(range(11, 400), range(2, 10)),
            text="The remainder of {} divided by {} is".format,
            answer=lambda a, b: a % b,
        ),
        ProblemKind(
            name="successors",
            numbers=_each(range(10, 5000)),
            text="The number after {} is".format,
            answer=lambda a: a + 1,
        ),
        ProblemKind(
            name="predecessors",
            numbers=_each(range(10, 5000)),
            text="The number before {} is".format,
            answer=lambda a: a - 1,
        ),
        ProblemKind(
            name="gains",
            numbers=_all(range(3, 30), range(2, 20), range(len(_OBJECTS))),
            text=lambda a, b, what: f"Ann has {a} {_OBJECTS[what]} and gets {b} more. Now she has",
            answer=lambda a, b, what: a + b,
        ),
        ProblemKind(
            name="losses",
            numbers=lambda: ((a, b, what) for a, b, what in product(range(5, 32), range(2, 20), range(8)) if a > b),
            text=lambda a, b, what: f"Ann has {a} {_OBJECTS[what]} and gives {b} away. Now she has",
            answer=lambda a, b, what: a - b,
        ),
        ProblemKind(
            name="groups",
            numbers=_all(range(2, 20), range(2, 20), range(len(_OBJECTS))),
            text=lambda a, b, what: f"There are {a} bags with {b} {_OBJECTS[what]} each. In all there are",
            answer=lambda a, b, what: a * b,
        ),
        ProblemKind(
            name="minutes",
            numbers=_all(range(1, 24), range(1, 60)),
            text="In minutes, {} hours and {} minutes are".format,
            answer=lambda hours, minutes: 60 * hours + minutes,
        ),
    )
}

#: The kinds of runs from before there was a choice.
FORMER_KINDS = ("sums", "times-table", "two-digit-sums")
DEFAULT_KINDS: tuple[str, ...] = FORMER_KINDS


def kind_of(example_id: str) -> str | None:
    """The kind of an arithmetic example by its id; None for an example of another task."""
    begins = [
        name for name in KINDS for split in ("train", "test") if example_id.startswith(f"arithmetic-{split}-{name}-")
    ]
    return max(begins, key=len, default=None)

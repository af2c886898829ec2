"""Racing: the programs that are right on most examples, found without running all of them on all examples.

Candidates race by successive halving (Karnin et al., ICML 2013): all run on the first few examples, the better half of
them on as many again, and so on. All see the same examples, so that two candidates differ by their answers alone, and
not by their luck with the examples. Half of those that go on are the best ones alone. The other half are those that
most would be gained from beside them: a program that is right on one kind of examples is worth much to a menu, and is
right on few examples of all kinds.

Shapes: N examples, M programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pipeline.program import LayerProgram

Array = np.ndarray[Any, Any]

#: Programs of each length that stay in the race however many longer ones are better: the front needs them.
KEPT_AT_A_LENGTH = 2


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The outcomes of programs on examples.

    Attributes:
        right: Share of an example's renderings that are answered right, ``[N, M]``.
        margins: Margins, ``[N, M]``: how far the logits are from the opposite result.
    """

    right: Array
    margins: Array


class RunsPrograms(Protocol):
    """Runs programs on examples; an implementation keeps the outcomes, and runs nothing twice."""

    def __call__(self, programs: Sequence[LayerProgram], examples: range) -> Outcomes:
        """The outcomes of programs on the examples at some places, ``[N, M]``."""
        ...


class Complements(Protocol):
    """Chooses programs by what is gained from them beside others; see ``router.menu.choice.SelectorComplements``."""

    def __call__(
        self, right: Array, programs: Sequence[LayerProgram], *, given: Sequence[int], number: int
    ) -> list[int]:
        """Places of at most ``number`` programs, the given ones first, by right answers ``[N, M]`` of the programs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of a race.

    Attributes:
        examples: Examples that every program of the round has run on.
        programs: The programs of the round.
        right: Share of right answers of each.
    """

    examples: int
    programs: list[LayerProgram]
    right: list[float]


@dataclass(frozen=True, kw_only=True)
class RaceResult:
    """The end of a race.

    Attributes:
        ranked: The programs that finished, the best first.
        kept: Those of them that go on, as after every round.
        rounds: The rounds.
    """

    ranked: list[LayerProgram]
    kept: list[LayerProgram]
    rounds: list[Round] = field(repr=False)

    @property
    def order(self) -> list[LayerProgram]:
        """All programs, the best first: those of the last round, then those that left the race last."""
        return list(dict.fromkeys(program for one in reversed(self.rounds) for program in one.programs))

    @property
    def evaluations(self) -> int:
        """Programs times examples that the race has run, each pair once."""
        known: dict[LayerProgram, int] = {}
        for one in self.rounds:
            known.update(dict.fromkeys(one.programs, one.examples))
        return sum(known.values())


def round_sizes(first: int, last: int) -> list[int]:
    """The examples of each round: ``first``, twice as many, and so on up to ``last``."""
    sizes = [min(first, last)]
    while sizes[-1] < last:
        sizes.append(min(2 * sizes[-1], last))
    return sizes


def race(
    candidates: Sequence[LayerProgram],
    run: RunsPrograms,
    *,
    sizes: Sequence[int],
    finishers: int,
    compare_margins: bool,
    complements: Complements | None = None,
    on_round: Callable[[Round], None] = lambda one: None,
) -> RaceResult:
    """Let candidates race.

    Args:
        candidates: The programs; each once.
        run: Runs programs on examples.
        sizes: Examples of each round, ascending.
        finishers: Programs that the last round has, at least: a round keeps half of its own, and no fewer than these.
        compare_margins: Whether margins, squashed, rank programs with equally many right answers.
        complements: Chooses the second half of those that go on; None for the best ones alone.
        on_round: Called with each round.

    Raises:
        ValueError: There is no candidate, or no round.
    """
    if not candidates or not sizes:
        raise ValueError("a race needs a candidate and a round")
    racing, rounds, ranked = list(candidates), [], list(candidates)
    for size in sizes:
        outcomes = run(racing, range(size))
        order = ranking(outcomes, racing, compare_margins=compare_margins)
        ranked, right = [racing[one] for one in order], outcomes.right[:, order]
        rounds.append(Round(examples=size, programs=ranked, right=right.mean(0).tolist()))
        on_round(rounds[-1])
        number = finishers if size == sizes[-1] else max(finishers, math.ceil(len(ranked) / 2))
        first = list(range(len(ranked)))
        if complements is not None and number < len(ranked):
            gained_from = complements(right, ranked, given=first[: math.ceil(number / 2)], number=number)
            first = list(dict.fromkeys([*gained_from, *first]))
        racing = survivors(ranked, first[:number])
    return RaceResult(ranked=ranked, kept=racing, rounds=rounds)


def ranking(outcomes: Outcomes, programs: Sequence[LayerProgram], *, compare_margins: bool) -> list[int]:
    """Places of programs, the best first: by right answers, then by squashed margins, then the shorter one."""
    right = outcomes.right.mean(0)
    margins = squashed(outcomes.margins).mean(0) if compare_margins else np.zeros(len(programs))
    return sorted(range(len(programs)), key=lambda one: (-right[one], -margins[one], len(programs[one]), one))


def squashed(margins: Array) -> Array:
    """Margins between -1 and 1: among answers that are far off, the distance says little."""
    finite = np.nan_to_num(margins.astype(np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    sizes = np.abs(finite[np.isfinite(finite)])
    scale = float(np.quantile(sizes, 0.9)) if sizes.size else 0.0
    return np.tanh(finite / (scale or 1.0))


def survivors(ranked: Sequence[LayerProgram], chosen: Sequence[int]) -> list[LayerProgram]:
    """The programs at the chosen places, and those among the first of their length below the depth; in their order."""
    at_length: dict[int, int] = {}
    going_on, places = [], set(chosen)
    for place, program in enumerate(ranked):
        better = at_length.get(len(program), 0)
        at_length[len(program)] = better + 1
        if place in places or (program.saved_layers > 0 and better < KEPT_AT_A_LENGTH):
            going_on.append(program)
    return going_on

"""The plan of a menu's races: how many candidates run on how many examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.errors import UserError
from pipeline.program import whole_layers
from router.menu.block_edits import single_edits
from router.menu.menu_request import MenuRequest
from router.menu.racing import round_sizes

#: Examples of a race's first round, of the last round of a screening, and of the last round of all.
FIRST_EXAMPLES, SCREENING_EXAMPLES, CHOOSING_EXAMPLES = 32, 256, 1024
#: Single edits of which pairs are made, and triples.
PAIRED, TRIPLED = 14, 6
#: Skips that each step of a greedy chain tries, and the examples that decide it.
CHAIN_WIDTH, CHAIN_EXAMPLES = 8, 64
#: Programs that finish the last race, for each one of the menu.
_FINISHERS = 1.5


@dataclass(frozen=True, kw_only=True)
class RacePlan:
    """The plan of a menu's races.

    Attributes:
        least: Fewest layers of a program.
        most: Most layers of a program.
        screening: Examples of each round of a screening.
        final: Examples of each round of the last race.
        finishers: Programs that finish each race, at least.
        all_singles: Single edits within the budgets.
        num_singles: Most single edits that race.
        num_combined: Most combinations of edits that race.
        chain_steps: Steps of the greedy chain.
        chain_examples: Examples that decide each step.
        evaluations: Programs times examples that all races and the matrix take, about.
    """

    least: int
    most: int
    screening: list[int]
    final: list[int]
    finishers: int
    all_singles: int
    num_singles: int
    num_combined: int
    chain_steps: int
    chain_examples: int
    evaluations: int

    @classmethod
    def of(cls, request: MenuRequest, *, num_layers: int, num_racing: int, num_held_out: int) -> RacePlan:
        """The plan of a request.

        Args:
            request: The menu.
            num_layers: Depth L of the model.
            num_racing: Examples that programs are chosen on.
            num_held_out: Held-out examples.

        Raises:
            UserError: No program is within the budgets, or the bound on evaluations is too low.
        """
        least = max(1, math.ceil(request.min_budget * num_layers - 1e-9))
        most = whole_layers(request.budget, num_layers)
        singles = sum(1 for _ in single_edits(num_layers, least=least, most=most))
        if not singles:
            raise UserError(
                f"no program but the identity has {least} to {most} of {num_layers} layers; give another --budget or "
                "--min-budget"
            )
        screening = round_sizes(FIRST_EXAMPLES, min(SCREENING_EXAMPLES, num_racing))
        last = min(CHOOSING_EXAMPLES, num_racing)
        final = round_sizes(min(2 * screening[-1], last), last)
        finishers = math.ceil(_FINISHERS * request.size)
        whole = cls(
            least=least,
            most=most,
            screening=screening,
            final=final,
            finishers=finishers,
            all_singles=singles,
            num_singles=singles,
            num_combined=math.comb(min(PAIRED, singles), 2) + math.comb(min(TRIPLED, singles), 3),
            chain_steps=num_layers - least,
            chain_examples=min(CHAIN_EXAMPLES, num_racing),
            evaluations=0,
        )
        rest = request.size * (num_racing + num_held_out - final[-1])
        return whole._within(request.evaluations, matrix=max(0, rest))

    def describe(self) -> str:
        """What is run, in words for the user."""
        some = (
            f", {self.num_singles} of {self.all_singles} single edits race (a higher --evaluations lets more of them)"
        )
        return f"about {self.evaluations} evaluations{some if self.num_singles < self.all_singles else ''}"

    def _within(self, bound: int | None, *, matrix: int) -> RacePlan:
        """This plan, with as many candidates as the bound on evaluations allows."""
        # Those that finished a screening have outcomes on its examples already.
        fixed = _cost(3 * self.finishers, self.final, self.finishers, known=self.screening[-1]) + matrix
        chain = self.chain_steps * CHAIN_WIDTH * self.chain_examples
        needed = [_cost(number, self.screening, self.finishers) for number in (self.num_singles, self.num_combined)]
        if bound is None or fixed + chain + sum(needed) <= bound:
            return replace(self, evaluations=fixed + chain + sum(needed))
        left = bound - fixed
        num_singles = _affordable(self.num_singles, left // 2, self.screening, self.finishers)
        if num_singles < 2:
            least = fixed + 2 * _cost(2, self.screening, self.finishers)
            raise UserError(
                f"--evaluations {bound} is too low: a menu of this --size on these examples takes {least} at least; "
                "give fewer examples (--limit), a smaller --size, or more evaluations"
            )
        left -= _cost(num_singles, self.screening, self.finishers)
        num_combined = _affordable(self.num_combined, left, self.screening, self.finishers)
        left -= _cost(num_combined, self.screening, self.finishers)
        steps = max(0, min(self.chain_steps, left // (CHAIN_WIDTH * self.chain_examples)))
        return replace(self, num_singles=num_singles, num_combined=num_combined, chain_steps=steps, evaluations=bound)


def _affordable(wanted: int, evaluations: int, sizes: Sequence[int], finishers: int) -> int:
    """The most candidates, up to ``wanted``, whose race takes no more evaluations; 0 where not even one does."""
    low, high = 0, wanted
    while low < high:
        middle = (low + high + 1) // 2
        if _cost(middle, sizes, finishers) <= evaluations:
            low = middle
        else:
            high = middle - 1
    return low


def _cost(candidates: int, sizes: Sequence[int], finishers: int, *, known: int = 0) -> int:
    """Evaluations of a race: in each round the examples that are new, for every program that still races."""
    total, racing = 0, candidates
    for size in sizes:
        total += racing * max(0, size - known)
        known = max(known, size)
        racing = min(racing, max(finishers, math.ceil(racing / 2)))
    return total

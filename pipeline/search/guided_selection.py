"""The programs that a search could try next on one question, and what is expected of each.

A prior says what programs are worth on questions in general. Each verdict on this question moves what is
expected of every other program, by as much as the two have in common: a linear Gaussian model, so that
all of it is arithmetic on a few arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pipeline.prior import Floats, Prior, features
from pipeline.program import LayerProgram
from pipeline.search.actions import Edit

#: Gaussian to logistic: the curves of both lie within 0.01 of each other (Bowling et al., 2009).
_LOGISTIC = 1.702
#: Decides between programs that promise the same, which differ by rounding alone.
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program one edit away from one that was tried.

    Attributes:
        parent: The tree's node of that one.
        edit: The edit.
    """

    parent: int
    edit: Edit


class GuidedSelection:
    """Programs within reach on one question, in the light of its verdicts.

    Args:
        prior: What is expected before the first verdict.
        longest: Most layers of an acceptable program. Longer ones are ways to shorter ones, no more.
        caution: Logits that the chance of a right answer loses with every skipped or repeated layer.
    """

    def __init__(self, prior: Prior, *, longest: int, caution: float = 0.0) -> None:
        self._prior = prior
        self._longest = longest
        self._caution = caution
        self._mean, self._covariance = prior.mean.copy(), prior.covariance.copy()
        self._believed: dict[LayerProgram, tuple[Floats, float]] = {}
        self._candidates: list[Candidate] = []
        self._place: dict[LayerProgram, int] = {}
        self._dropped: set[LayerProgram] = set()
        # One row a candidate: its features, how many layers it skips or repeats, its length (0 once it is
        # asked for), what it is expected to be worth, and the variance of that.
        self._features = np.empty((0, len(prior.mean)))
        self._changes = np.empty(0)
        self._length = np.empty(0, dtype=np.int64)
        self._worth, self._doubt = np.empty(0), np.empty(0)

    def extend(self, parent: int, edits: Iterable[Edit]) -> None:
        """Add programs that have come within reach; those that are known already stay as they are."""
        new = [edit for edit in edits if edit.program not in self._place and edit.program not in self._dropped]
        if not new:
            return
        self._place.update((edit.program, len(self._candidates) + index) for index, edit in enumerate(new))
        self._candidates.extend(Candidate(parent, edit) for edit in new)
        rows = features([edit.program for edit in new])
        self._features = np.vstack([self._features, rows])
        self._changes = np.append(self._changes, rows[:, 1 : 2 * self._prior.num_layers + 1].sum(axis=1))
        self._length = np.append(self._length, [len(edit.program) for edit in new])
        self._worth = np.append(self._worth, rows @ self._mean)
        self._doubt = np.append(self._doubt, ((rows @ self._covariance) * rows).sum(axis=1))

    def most_promising(self, record: int | None) -> Candidate | None:
        """The candidate that promises most.

        Args:
            record: Length of the shortest right program so far; None while none is known.

        Returns:
            Where nothing is right yet, the one that is likeliest to be right; otherwise the one that is
            expected to save most layers over the record. Where all are too long, the likeliest of the
            shortest. None where no candidate is left that could gain.
        """
        open_ones = (self._length > 0) & (self._length < (np.inf if record is None else record))
        if not open_ones.any():
            return None
        least = self._length[open_ones].min()
        open_ones &= self._length <= max(least, self._longest)
        spread = np.sqrt(np.maximum(self._doubt, 0.0) + self._prior.noise)
        chance = 0.5 + 0.5 * np.tanh(0.5 * (_LOGISTIC * self._worth / spread - self._caution * self._changes))
        gain = 1.0 if record is None else record - self._length
        promise = np.where(open_ones, np.round(chance * gain, _DECIMALS), -1.0)
        # Of equals the shortest, and of those the one that came within reach first.
        first = np.lexsort((np.arange(len(promise)), self._length, -promise))[0]
        return self._candidates[int(first)]

    def ask(self, program: LayerProgram) -> None:
        """A program is being run. Until its verdict is told it is believed to turn out as expected.

        That makes its likes less doubtful, and programs asked for at the same time differ.
        """
        row = features([program])[0]
        expected = float(row @ self._mean)
        direction = self._covariance @ row
        variance = float(row @ direction) + self._prior.noise
        self._covariance -= np.outer(direction, direction) / variance
        self._doubt -= (self._features @ direction) ** 2 / variance
        self._believed[program] = row, expected
        self.drop(program)

    def drop(self, program: LayerProgram) -> None:
        """A program is a candidate no more."""
        self._dropped.add(program)
        place = self._place.pop(program, None)
        if place is not None:
            self._length[place] = 0

    def tell(self, program: LayerProgram, *, correct: bool, margin: float) -> None:
        """The verdict on a program that was asked for.

        Raises:
            KeyError: It was not asked for.
        """
        row, expected = self._believed[program]
        # How a surprise moves the weights when everything else that is believed stays.
        move = self._covariance @ row * ((self._prior.worth(correct, margin) - expected) / self._prior.noise)
        self._mean += move
        self._worth += self._features @ move

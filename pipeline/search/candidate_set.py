"""The programs that a guided search could evaluate next, and the value predicted for each.

A prior predicts the value of programs on examples in general. Each result on this example moves the prediction for
every other program, by as much as the two have in common: a linear Gaussian model, so that all of it is arithmetic on
a few arrays.
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
#: Expected gains are rounded to so many decimals: equal ones differ by rounding errors alone.
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program one edit away from one in the graph.

    Attributes:
        parent: Index of the node of the program that is edited.
        edit: The edit.
    """

    parent: int
    edit: Edit


class CandidateSet:
    """Candidates on one example, with the posterior of their values given its results so far.

    Args:
        prior: The predictions before the first result.
        longest: Most layers of an acceptable program. Longer ones only lead to shorter ones.
        depth_penalty: Decrease of the logit of a right answer with every skipped or repeated layer.
    """

    def __init__(self, prior: Prior, *, longest: int, depth_penalty: float = 0.0) -> None:
        self._prior = prior
        self._longest = longest
        self._depth_penalty = depth_penalty
        self._mean, self._covariance = prior.mean.copy(), prior.covariance.copy()
        self._expected: dict[LayerProgram, tuple[Floats, float]] = {}
        self._candidates: list[Candidate] = []
        self._index: dict[LayerProgram, int] = {}
        self._dropped: set[LayerProgram] = set()
        # One row a candidate: its features, how many layers it skips or repeats, its length (0 once it is
        # dropped), its posterior mean and its posterior variance.
        self._features = np.empty((0, len(prior.mean)))
        self._changes = np.empty(0)
        self._length = np.empty(0, dtype=np.int64)
        self._value, self._variance = np.empty(0), np.empty(0)

    def extend(self, parent: int, edits: Iterable[Edit]) -> None:
        """Add the programs that edits of a node lead to; those that are known already stay as they are."""
        new = [edit for edit in edits if edit.program not in self._index and edit.program not in self._dropped]
        if not new:
            return
        self._index.update((edit.program, len(self._candidates) + index) for index, edit in enumerate(new))
        self._candidates.extend(Candidate(parent, edit) for edit in new)
        rows = features([edit.program for edit in new])
        self._features = np.vstack([self._features, rows])
        self._changes = np.append(self._changes, rows[:, 1 : 2 * self._prior.num_layers + 1].sum(axis=1))
        self._length = np.append(self._length, [len(edit.program) for edit in new])
        self._value = np.append(self._value, rows @ self._mean)
        self._variance = np.append(self._variance, ((rows @ self._covariance) * rows).sum(axis=1))

    def best(self, best_length: int | None) -> Candidate | None:
        """The candidate with the highest expected gain.

        Args:
            best_length: Length of the shortest right program so far; None while no program is right.

        Returns:
            While no program is right, the candidate that is likeliest to be right; then the one that is expected to
            save most layers over the shortest right program. Where all candidates are too long, the likeliest of the
            shortest. None where no candidate is left that could gain.
        """
        is_open = (self._length > 0) & (self._length < (np.inf if best_length is None else best_length))
        if not is_open.any():
            return None
        shortest = self._length[is_open].min()
        is_open &= self._length <= max(shortest, self._longest)
        spread = np.sqrt(np.maximum(self._variance, 0.0) + self._prior.noise)
        chance = 0.5 + 0.5 * np.tanh(0.5 * (_LOGISTIC * self._value / spread - self._depth_penalty * self._changes))
        gain = 1.0 if best_length is None else best_length - self._length
        expected_gain = np.where(is_open, np.round(chance * gain, _DECIMALS), -1.0)
        # Of equals the shortest, and of those the one that was added first.
        first = np.lexsort((np.arange(len(expected_gain)), self._length, -expected_gain))[0]
        return self._candidates[int(first)]

    def expect(self, program: LayerProgram) -> None:
        """Drop a program that is being evaluated, and take the predicted result for granted until ``update``.

        That lowers the variance of similar programs, so that programs proposed at once differ.
        """
        row = features([program])[0]
        expected = float(row @ self._mean)
        direction = self._covariance @ row
        variance = float(row @ direction) + self._prior.noise
        self._covariance -= np.outer(direction, direction) / variance
        self._variance -= (self._features @ direction) ** 2 / variance
        self._expected[program] = row, expected
        self.drop(program)

    def drop(self, program: LayerProgram) -> None:
        """Take a program out of the candidates, for good."""
        self._dropped.add(program)
        index = self._index.pop(program, None)
        if index is not None:
            self._length[index] = 0

    def update(self, program: LayerProgram, *, correct: bool, margin: float) -> None:
        """Correct every prediction by the result of a program that was expected.

        Raises:
            KeyError: ``expect`` was not called for the program.
        """
        row, expected = self._expected[program]
        # By how much a surprise moves the weights where all other expectations stay.
        move = self._covariance @ row * ((self._prior.value(correct, margin) - expected) / self._prior.noise)
        self._mean += move
        self._value += self._features @ move

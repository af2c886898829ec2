"""What is to be handed out: work groups, pieces of groups that fail, and copies of what takes long.

A piece is handed out, and comes back finished or lost. A group that is lost on three actors is split, and so is every
piece of it that is lost again, until the example that kills its actors is alone; that one is set aside after three
more. A piece whose machine was taken away goes back as if nothing had been. Nothing here knows Ray, or what a piece's
result is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Result = TypeVar("Result")

#: Actors on which a group, or an example that is alone, is lost before it is split or set aside.
MAX_ATTEMPTS = 3
#: Copies of a piece that are under way at once, at most.
MAX_COPIES = 2


@dataclass(frozen=True, order=True, slots=True)
class Piece:
    """Some examples of a group: those at ``start`` … ``stop - 1`` of it."""

    group: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def halves(self) -> tuple[Piece, Piece]:
        """The first and the second half of more than one example."""
        middle = (self.start + self.stop) // 2
        return Piece(self.group, self.start, middle), Piece(self.group, middle, self.stop)


@dataclass(kw_only=True, slots=True)
class Settled(Generic[Result]):
    """A group of which nothing is left to do.

    Attributes:
        group: Its number.
        results: What its pieces came to, in the order of its examples.
        failed: Places of examples that were set aside, each with the reason.
    """

    group: int
    results: list[Result]
    failed: dict[int, str]


@dataclass(kw_only=True, slots=True)
class _Open(Generic[Result]):
    """A group on its way."""

    size: int
    results: dict[Piece, Result] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        return sum(map(len, self.results)) + len(self.failed) == self.size


class Worklist(Generic[Result]):
    """The work groups that are not settled yet.

    Args:
        sizes: How many examples each group has, in the order in which they are handed out.
    """

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self._groups: dict[int, _Open[Result]] = {group: _Open(size=size) for group, size in sizes.items()}
        self._todo = deque(Piece(group, 0, size) for group, size in sizes.items())
        self._copies: Counter[Piece] = Counter()
        self._lost: Counter[Piece] = Counter()

    def __len__(self) -> int:
        """Pieces that wait for somebody."""
        return len(self._todo)

    @property
    def settled(self) -> bool:
        """Nothing is left to do."""
        return not self._groups

    @property
    def most_wanted(self) -> int:
        """Actors that there may be work for: a piece that is under way may yet need a copy."""
        return len(self._todo) + MAX_COPIES * len(self._copies)

    def take(self, may_start: Callable[[int], bool] = lambda group: True) -> Piece | None:
        """Hand out the next piece; None where none waits, or its group may not start yet."""
        if not self._todo or not may_start(self._todo[0].group):
            return None
        piece = self._todo.popleft()
        self._copies[piece] += 1
        return piece

    def copy(self, overdue: Callable[[Piece], bool] = lambda piece: True) -> Piece | None:
        """Hand out a piece once more that somebody else has had for long; None where there is none."""
        for piece, copies in self._copies.items():
            if copies < MAX_COPIES and overdue(piece):
                self._copies[piece] += 1
                return piece
        return None

    def is_open(self, piece: Piece) -> bool:
        """Whether a piece's result is still waited for."""
        return piece in self._copies

    def finish(self, piece: Piece, result: Result) -> Settled[Result] | None:
        """Take a piece's result: the first one counts, others are as if they had not come.

        Returns:
            The group, where this was the last of it.
        """
        if not self.is_open(piece):
            return None
        del self._copies[piece]
        self._groups[piece.group].results[piece] = result
        return self._close(piece.group)

    def give_back(self, piece: Piece) -> None:
        """Somebody lost a piece through no fault of its examples."""
        if self._drop(piece):
            self._todo.appendleft(piece)

    def lose(self, piece: Piece, reason: str) -> Settled[Result] | None:
        """Somebody lost a piece, and its examples may be why.

        Args:
            piece: It.
            reason: What is noted of an example that is set aside.

        Returns:
            The group, where this was the last of it.
        """
        if not self.is_open(piece):
            return None
        self._lost[piece] += 1
        if not self._drop(piece):
            return None  # another copy may still finish
        whole = len(piece) == self._groups[piece.group].size
        if self._lost[piece] < MAX_ATTEMPTS and (whole or len(piece) == 1):
            self._todo.appendleft(piece)
        elif len(piece) > 1:
            self._todo.extendleft(reversed(piece.halves()))
        else:
            self._groups[piece.group].failed[piece.start] = reason
            return self._close(piece.group)
        return None

    def _drop(self, piece: Piece) -> bool:
        """One copy less; whether that was the last."""
        if not self.is_open(piece):
            return False
        self._copies[piece] -= 1
        if self._copies[piece]:
            return False
        del self._copies[piece]
        return True

    def _close(self, group: int) -> Settled[Result] | None:
        state = self._groups[group]
        if not state.settled:
            return None
        del self._groups[group]
        results = [result for _, result in sorted(state.results.items(), key=lambda item: item[0])]
        return Settled(group=group, results=results, failed=state.failed)

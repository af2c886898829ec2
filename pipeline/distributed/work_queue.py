"""What is to be handed out: work groups, pieces of groups that fail, and copies of what takes long.

A piece is handed out, and comes back finished or lost. A group that is lost on three actors is split, and so is every
piece of it that is lost again, until the example that kills its actors is alone; that one is set aside after three
more. What is left of the group is then searched once more in one piece, so that its rows do not depend on how it was
taken apart, or on whether it had to be. Pieces that somebody lost wait behind all that nobody did: bad examples hold
up nobody, and an outage may be over by then. A piece whose machine was taken away goes back as if nothing had been.
Nothing here knows Ray, or what a piece's result is.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

#: Actors on which a group, or an example that is alone, is lost before it is split or set aside.
MAX_ATTEMPTS = 3
#: Copies of a piece that are under way at once, at most.
MAX_COPIES = 2


@dataclass(frozen=True, order=True, slots=True)
class Piece:
    """Some examples of a group.

    Attributes:
        group: Its number.
        places: Which of its examples, in their order.
    """

    group: int
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def halves(self) -> tuple[Piece, Piece]:
        """The first and the second half of more than one example."""
        middle = len(self) // 2
        return Piece(self.group, self.places[:middle]), Piece(self.group, self.places[middle:])


@dataclass(kw_only=True, slots=True)
class Settled(Generic[Result]):
    """A group of which nothing is left to do.

    Attributes:
        group: Its number.
        results: What its pieces came to, in the order of its examples: mostly one.
        failed: Places of examples that were set aside, each with the reason.
    """

    group: int
    results: list[Result]
    failed: dict[int, str]


@dataclass(kw_only=True, slots=True)
class _Open(Generic[Result]):
    """A group on its way.

    Attributes:
        size: Examples.
        results: What its pieces came to.
        failed: Places of examples that were set aside, each with the reason.
        rest: What is left of a group that was taken apart, once that is known: searched in one piece.
    """

    size: int
    results: dict[Piece, Result] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    rest: Piece | None = None

    @property
    def known(self) -> bool:
        """Whether it is known of every example if it can be searched."""
        return sum(map(len, self.results)) + len(self.failed) == self.size


class WorkQueue(Generic[Result]):
    """The work groups that are not settled yet.

    Args:
        sizes: How many examples each group has, in the order in which they are handed out.
    """

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self._groups: dict[int, _Open[Result]] = {group: _Open(size=size) for group, size in sizes.items()}
        self._fresh = deque(Piece(group, tuple(range(size))) for group, size in sizes.items())
        #: Pieces that somebody lost, and what is left of groups that were taken apart.
        self._suspect: deque[Piece] = deque()
        self._copies: Counter[Piece] = Counter()
        self._lost: Counter[Piece] = Counter()
        self._last_loser: dict[Piece, Any] = {}

    def __len__(self) -> int:
        """Pieces that wait for somebody."""
        return len(self._fresh) + len(self._suspect)

    @property
    def settled(self) -> bool:
        """Nothing is left to do."""
        return not self._groups

    @property
    def most_wanted(self) -> int:
        """Actors that there may be work for: a piece that is under way may yet need a copy."""
        return len(self) + MAX_COPIES * len(self._copies)

    def take(
        self,
        may_start: Callable[[int], bool] = lambda group: True,
        avoids: Callable[[Any], bool] = lambda loser: False,
    ) -> Piece | None:
        """Hand out the next piece.

        Args:
            may_start: Whether a group may be begun. Of those that nobody has lost only the next one is looked at.
            avoids: Told who lost a piece last, says whether it is for somebody else.

        Returns:
            The piece; None where there is none for whoever asks.
        """
        if self._fresh and may_start(self._fresh[0].group):
            return self._hand_out(self._fresh.popleft())
        for piece in self._suspect:
            if may_start(piece.group) and not (piece in self._last_loser and avoids(self._last_loser[piece])):
                self._suspect.remove(piece)
                return self._hand_out(piece)
        return None

    def copy(self, overdue: Callable[[Piece], bool] = lambda piece: True) -> Piece | None:
        """Hand out a piece once more that somebody else has had for long; None where there is none."""
        for piece, copies in self._copies.items():
            if copies < MAX_COPIES and overdue(piece):
                return self._hand_out(piece)
        return None

    def is_open(self, piece: Piece) -> bool:
        """Whether a piece's result is still waited for."""
        return piece in self._copies

    def is_fresh(self, piece: Piece) -> bool:
        """Whether a piece is a whole group that nobody has lost yet."""
        state = self._groups.get(piece.group)
        return state is not None and state.rest is None and len(piece) == state.size and not self._lost[piece]

    def finish(self, piece: Piece, result: Result) -> Settled[Result] | None:
        """Take a piece's result: the first one counts, others are as if they had not come.

        Returns:
            The group, where this was the last of it.
        """
        if not self.is_open(piece):
            return None
        self._close(piece)
        state = self._groups[piece.group]
        if piece == state.rest:
            state.results = {}
        state.results[piece] = result
        return self._settle(piece.group)

    def give_back(self, piece: Piece) -> None:
        """Somebody lost a piece through no fault of its examples."""
        if self._drop(piece):
            (self._fresh if self.is_fresh(piece) else self._suspect).appendleft(piece)

    def lose(self, piece: Piece, reason: str, loser: Hashable = None) -> Settled[Result] | None:
        """Somebody lost a piece, and its examples may be why.

        Args:
            piece: It.
            reason: What is noted of an example that is set aside.
            loser: Who.

        Returns:
            The group, where this was the last of it.
        """
        if not self.is_open(piece):
            return None
        self._lost[piece] += 1
        self._last_loser[piece] = loser
        if not self._drop(piece):
            return None  # another copy may still finish
        state = self._groups[piece.group]
        whole = len(piece) == state.size or piece == state.rest
        if self._lost[piece] < MAX_ATTEMPTS and (whole or len(piece) == 1):
            self._suspect.append(piece)
            return None
        self._close(piece)
        if piece == state.rest:
            return self._settle(piece.group)  # its pieces' own results must do
        if len(piece) > 1:
            self._suspect.extend(piece.halves())
            return None
        state.failed[piece.places[0]] = reason
        return self._settle(piece.group)

    # -- inside ----------------------------------------------------------------------------

    def _hand_out(self, piece: Piece) -> Piece:
        self._copies[piece] += 1
        return piece

    def _drop(self, piece: Piece) -> bool:
        """One copy less; whether that was the last."""
        if not self.is_open(piece):
            return False
        self._copies[piece] -= 1
        if self._copies[piece]:
            return False
        del self._copies[piece]
        return True

    def _close(self, piece: Piece) -> None:
        """Forget who had a piece and who lost it: nobody will have it again."""
        self._copies.pop(piece, None)
        self._lost.pop(piece, None)
        self._last_loser.pop(piece, None)

    def _settle(self, group: int) -> Settled[Result] | None:
        state = self._groups[group]
        if not state.known:
            return None
        left = tuple(place for place in range(state.size) if place not in state.failed)
        if len(state.results) > 1 and state.rest is None:
            state.rest = Piece(group, left)
            self._suspect.append(state.rest)
            return None
        del self._groups[group]
        results = [result for _, result in sorted(state.results.items(), key=lambda item: item[0])]
        return Settled(group=group, results=results, failed=state.failed)

"""The work of a search: work groups, chunks of groups that fail, and copies of chunks that take long.

A chunk is handed out, and comes back finished or failed:

    pending ──take──▶ in flight ──finish──▶ finalized
                        │  ▲
                       fail │ take, on another actor if there is one
                        ▼  │
                      retry queue ──3 failures──▶ split into halves, or set aside if it is one example

A group that failed on three actors is split, and so is every chunk of it that fails again, until the example that ends
its actors is alone; that one is set aside after three more failures. The rest of the group is then searched once more
in one chunk, so that its rows do not depend on how the group was split, or on whether it had to be. Failed chunks are
retried after all first attempts: bad examples hold up no others, and an outage may be over by then. A chunk whose
machine was taken away is requeued as if it had not begun. The queue does not depend on Ray or on the type of a result.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Result = TypeVar("Result")

#: Actors on which a group, or an example that is alone, fails before it is split or set aside.
MAX_ATTEMPTS = 3
#: Copies of a chunk that are in flight at once, at most.
MAX_COPIES = 2


@dataclass(frozen=True, order=True, slots=True)
class Chunk:
    """Some examples of a group.

    Attributes:
        group: The group's number.
        indices: The examples' indices in the group, ascending.
    """

    group: int
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def halves(self) -> tuple[Chunk, Chunk]:
        """The first and the second half of more than one example."""
        middle = len(self) // 2
        return Chunk(self.group, self.indices[:middle]), Chunk(self.group, self.indices[middle:])


@dataclass(frozen=True, slots=True)
class Worker:
    """An actor, as the queue knows it.

    Attributes:
        number: The actor's number.
        node: The machine that it is on; None until that is known.
    """

    number: int
    node: str | None = None


@dataclass(kw_only=True, slots=True)
class FinalizedGroup(Generic[Result]):
    """A group of which nothing is left to do.

    Attributes:
        group: The group's number.
        results: The results of the group's chunks, in the order of the examples: mostly one.
        failed: Indices of the examples that were set aside, each with the reason.
    """

    group: int
    results: list[Result]
    failed: dict[int, str]


@dataclass(kw_only=True, slots=True)
class _OpenGroup(Generic[Result]):
    """A group that is not finalized.

    Attributes:
        size: Number of examples of the group.
        results: The results of its chunks so far.
        failed: Indices of the examples that were set aside, each with the reason.
        rest: For a group that was split, the examples that were not set aside, once that is known of all.
    """

    size: int
    results: dict[Chunk, Result] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    rest: Chunk | None = None

    @property
    def is_known(self) -> bool:
        """Whether every example has a result or is set aside."""
        return sum(map(len, self.results)) + len(self.failed) == self.size


class WorkQueue(Generic[Result]):
    """The work groups that are not finalized yet.

    Args:
        sizes: Number of examples of each group, in the order in which groups are handed out.
        prerequisites: Groups that must all be finalized before any other is begun.
    """

    def __init__(self, sizes: Mapping[int, int], prerequisites: Collection[int] = ()) -> None:
        self._groups: dict[int, _OpenGroup[Result]] = {group: _OpenGroup(size=size) for group, size in sizes.items()}
        self._prerequisites = frozenset(prerequisites)
        self._pending = deque(Chunk(group, tuple(range(size))) for group, size in sizes.items())
        #: Chunks that failed, and the rest of groups that were split.
        self._retry: deque[Chunk] = deque()
        #: How many copies of a chunk are in flight.
        self._copies: Counter[Chunk] = Counter()
        self._failures: Counter[Chunk] = Counter()
        self._last_failed_on: dict[Chunk, Worker] = {}

    def __len__(self) -> int:
        """Chunks that wait for an actor."""
        return len(self._pending) + len(self._retry)

    @property
    def is_done(self) -> bool:
        """Whether every group is finalized."""
        return not self._groups

    @property
    def awaits_prerequisites(self) -> bool:
        """Whether a group that the others wait for is not finalized."""
        return any(group in self._groups for group in self._prerequisites)

    @property
    def most_wanted(self) -> int:
        """Actors that there may be work for: a chunk in flight may yet need a copy."""
        return len(self) + MAX_COPIES * len(self._copies)

    def take(self, worker: Worker, others: Sequence[Worker] = ()) -> Chunk | None:
        """Hand out the next chunk.

        Args:
            worker: The actor that it is for. A chunk that failed is for another actor, on another machine if possible.
            others: All other actors.

        Returns:
            The chunk; None if there is none for this actor now.
        """
        if self._pending and self._may_begin(self._pending[0]):
            return self._hand_out(self._pending.popleft())
        for chunk in self._retry:
            failed_on = self._last_failed_on.get(chunk)
            if self._may_begin(chunk) and not (failed_on and is_for_another(worker, failed_on, others)):
                self._retry.remove(chunk)
                return self._hand_out(chunk)
        return None

    def copy(self, overdue: Collection[Chunk]) -> Chunk | None:
        """Hand out one of the overdue chunks once more; None if each has enough copies in flight."""
        for chunk, copies in self._copies.items():
            if copies < MAX_COPIES and chunk in overdue:
                return self._hand_out(chunk)
        return None

    def is_in_flight(self, chunk: Chunk) -> bool:
        """Whether a chunk's result is still waited for."""
        return chunk in self._copies

    def is_first_attempt(self, chunk: Chunk) -> bool:
        """Whether a chunk is a whole group that has never failed."""
        state = self._groups.get(chunk.group)
        return state is not None and state.rest is None and len(chunk) == state.size and not self._failures[chunk]

    def finish(self, chunk: Chunk, result: Result) -> FinalizedGroup[Result] | None:
        """Take a chunk's result. The first one counts; those of other copies are dropped.

        Returns:
            The group, if nothing of it is left to do.
        """
        if not self.is_in_flight(chunk):
            return None
        self._close(chunk)
        state = self._groups[chunk.group]
        if chunk == state.rest:
            state.results = {}
        state.results[chunk] = result
        return self._finalize(chunk.group)

    def requeue(self, chunk: Chunk) -> None:
        """Take a chunk back as if it had not begun: its actor ended, and its examples are not why."""
        if self._is_last_copy(chunk):
            queue = self._pending if self.is_first_attempt(chunk) else self._retry
            queue.appendleft(chunk)

    def fail(self, chunk: Chunk, reason: str, worker: Worker | None = None) -> FinalizedGroup[Result] | None:
        """Take back a chunk whose examples may be why its actor failed.

        Args:
            chunk: The chunk.
            reason: The error, noted of an example that is set aside.
            worker: The actor that failed.

        Returns:
            The group, if nothing of it is left to do.
        """
        if not self.is_in_flight(chunk):
            return None
        self._failures[chunk] += 1
        if worker is not None:
            self._last_failed_on[chunk] = worker
        if not self._is_last_copy(chunk):
            return None  # another copy may still finish
        state = self._groups[chunk.group]
        whole = len(chunk) == state.size or chunk == state.rest
        if self._failures[chunk] < MAX_ATTEMPTS and (whole or len(chunk) == 1):
            self._retry.append(chunk)
            return None
        self._close(chunk)
        if chunk == state.rest:
            return self._finalize(chunk.group)  # with the results that its chunks have
        return self._split_or_set_aside(chunk, reason)

    def _split_or_set_aside(self, chunk: Chunk, reason: str) -> FinalizedGroup[Result] | None:
        """Go on with the halves of a chunk that failed too often; set it aside if it is one example."""
        if len(chunk) > 1:
            self._retry.extend(chunk.halves())
            return None
        self._groups[chunk.group].failed[chunk.indices[0]] = reason
        return self._finalize(chunk.group)

    def _may_begin(self, chunk: Chunk) -> bool:
        return chunk.group in self._prerequisites or not self.awaits_prerequisites

    def _hand_out(self, chunk: Chunk) -> Chunk:
        self._copies[chunk] += 1
        return chunk

    def _is_last_copy(self, chunk: Chunk) -> bool:
        """Take one copy of a chunk out of flight; whether that was the last one."""
        if not self.is_in_flight(chunk):
            return False
        self._copies[chunk] -= 1
        if self._copies[chunk]:
            return False
        del self._copies[chunk]
        return True

    def _close(self, chunk: Chunk) -> None:
        """Forget a chunk's copies and failures: it is not handed out again."""
        self._copies.pop(chunk, None)
        self._failures.pop(chunk, None)
        self._last_failed_on.pop(chunk, None)

    def _finalize(self, group: int) -> FinalizedGroup[Result] | None:
        """The group, if nothing of it is left to do; else nothing, or its rest goes into the retry queue."""
        state = self._groups[group]
        if not state.is_known:
            return None
        if self._needs_joint_search(state):
            state.rest = Chunk(group, tuple(index for index in range(state.size) if index not in state.failed))
            self._retry.append(state.rest)
            return None
        del self._groups[group]
        results = [result for _, result in sorted(state.results.items(), key=lambda item: item[0])]
        return FinalizedGroup(group=group, results=results, failed=state.failed)

    @staticmethod
    def _needs_joint_search(state: _OpenGroup[Result]) -> bool:
        """Whether a group has results of several chunks, and was not searched in one chunk without its bad examples."""
        return len(state.results) > 1 and state.rest is None


def is_for_another(worker: Worker, failed_on: Worker, others: Sequence[Worker]) -> bool:
    """Whether a chunk should wait for another actor: one on another machine, or at least not the one that failed.

    Args:
        worker: The actor that has time.
        failed_on: The actor that failed last at the chunk.
        others: All actors but ``worker``.
    """
    if worker.node == failed_on.node and any(other.node != failed_on.node for other in others):
        return True
    return worker.number == failed_on.number and bool(others)

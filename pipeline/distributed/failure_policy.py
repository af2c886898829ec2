"""The failure policy of a search: replace an actor that failed, wait, charge the chunk, or stop the run.

An event goes in, a decision comes out; the policy does not depend on Ray, a clock or the work queue.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias, assert_never

#: Actors that may fail one after the other while they load the model, before the run stops.
MAX_FAILED_STARTS = 3
#: Actors that may die one after the other, over chunks that had never failed before, or over any chunk while this call
#: has finished none, before the run stops: then the cluster is at fault, not the examples.
MAX_DEATHS_IN_A_ROW = 50
#: Exceptions one after the other after which an actor is broken: after some errors a GPU fails at everything.
MAX_EXCEPTIONS_IN_A_ROW = 3
#: Seconds until an actor is replaced: after the first failed start, and at most. A death waits twice as long, and each
#: failure in a row doubles the pause.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 10.0
#: Deaths after which the pause grows no more.
_MOST_DOUBLINGS = 16


class FailureKind(Enum):
    """The kinds of failures of an actor's call."""

    EXCEPTION = auto()
    """The actor raised an exception, and lives."""
    DEATH = auto()
    """The actor's process, or its machine, is gone."""
    PREEMPTION = auto()
    """The actor's machine was taken away, as its drain notice had said."""
    STALL = auto()
    """The actor has finished no program for too long."""


class StopReason(Enum):
    """The reasons for which a run stops."""

    USER_ERROR = auto()
    """The request is wrong: no actor can load the model, or the model cannot be searched."""
    STARTS_FAIL = auto()
    """Actors fail one after the other while they load the model."""
    ACTORS_DIE = auto()
    """Actors die one after the other, and no chunk is finished in between."""


@dataclass(frozen=True, kw_only=True)
class ActorLoaded:
    """An actor has loaded the model."""


@dataclass(frozen=True, kw_only=True)
class LoadFailed:
    """An actor failed while it loaded the model."""

    kind: FailureKind
    """The kind of the failure."""
    user_error: bool = False
    """Whether the exception says that the request is wrong; that may hold on one node alone."""
    others: bool = False
    """Whether another actor has loaded the model, or may do so yet."""


@dataclass(frozen=True, kw_only=True)
class IdleActorFailed:
    """An actor failed that had no chunk."""

    kind: FailureKind
    """The kind of the failure."""


@dataclass(frozen=True, kw_only=True)
class ChunkFailed:
    """An actor failed at a chunk."""

    actor: int
    """The actor's number."""
    kind: FailureKind
    """The kind of the failure."""
    first_attempt: bool
    """Whether the chunk is a whole group that had never failed before."""
    user_error: bool = False
    """Whether the exception says that the request is wrong, for a reason that the user must mend."""


@dataclass(frozen=True, kw_only=True)
class ChunkFinished:
    """An actor finished a chunk."""

    actor: int
    """The actor's number."""


Event: TypeAlias = ActorLoaded | LoadFailed | IdleActorFailed | ChunkFailed | ChunkFinished


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The consequences of an event."""

    replace: bool = False
    """Whether the actor is ended and replaced by another one."""
    pause_seconds: float = 0.0
    """Time until the next actor may start."""
    charge: bool = False
    """Whether the failure counts as an attempt at the chunk; if not, the chunk is requeued as if it had not begun."""
    stop: StopReason | None = None
    """The reason for which the run stops; None if it goes on."""


class FailurePolicy:
    """Counts failures in a row, and decides on the consequences of each."""

    def __init__(self) -> None:
        self._failed_starts = 0
        self._deaths = 0
        self._first_attempt_deaths = 0
        self._any_finished = False
        #: Exceptions in a row, by actor.
        self._exceptions: Counter[int] = Counter()

    def record(self, event: Event) -> Decision:
        """Count an event, and decide on its consequences."""
        match event:
            case ActorLoaded():
                self._failed_starts = 0
                return Decision()
            case ChunkFinished():
                self._any_finished = True
                self._deaths = self._first_attempt_deaths = 0
                del self._exceptions[event.actor]
                return Decision()
            case LoadFailed():
                return self._load_failed(event)
            case IdleActorFailed():
                if event.kind is FailureKind.PREEMPTION:
                    return Decision(replace=True)
                self._deaths += 1
                return Decision(replace=True, pause_seconds=self._pause_seconds())
            case ChunkFailed():
                return self._chunk_failed(event)
        assert_never(event)

    def awaits_first_load(self, *, num_ready: int, num_loading: int) -> bool:
        """Whether no further actor is started until one of those that load has loaded or failed.

        A machine without the model fails at once, again and again, while others take minutes to load it.

        Args:
            num_ready: Actors that have loaded the model.
            num_loading: Actors that still load it, and may succeed.
        """
        return self._failed_starts >= MAX_FAILED_STARTS and num_ready == 0 and num_loading > 0

    def _load_failed(self, event: LoadFailed) -> Decision:
        if event.kind is FailureKind.PREEMPTION:
            pause = 0.0
        else:
            pause = self._pause_seconds()
            self._failed_starts += 1
        return Decision(replace=True, pause_seconds=pause, stop=self._stop_of_start(event))

    def _stop_of_start(self, event: LoadFailed) -> StopReason | None:
        """Whether a failed start stops the run: never while another actor works, or may do so yet."""
        if event.others:
            return None
        if event.user_error:
            return StopReason.USER_ERROR
        return StopReason.STARTS_FAIL if self._failed_starts >= MAX_FAILED_STARTS else None

    def _chunk_failed(self, event: ChunkFailed) -> Decision:
        if event.user_error:
            return Decision(stop=StopReason.USER_ERROR)
        if event.kind is FailureKind.PREEMPTION:
            del self._exceptions[event.actor]
            return Decision(replace=True)  # its machine was taken away, which no example can be the reason of
        if event.kind is FailureKind.EXCEPTION:
            self._exceptions[event.actor] += 1
            if self._exceptions[event.actor] < MAX_EXCEPTIONS_IN_A_ROW:
                return Decision(charge=True)
        del self._exceptions[event.actor]
        self._deaths += 1
        if event.first_attempt:
            self._first_attempt_deaths += 1
        # Once a chunk is finished the cluster works, and chunks that fail again may hold bad examples.
        deaths = self._first_attempt_deaths if self._any_finished else self._deaths
        stop = StopReason.ACTORS_DIE if deaths >= MAX_DEATHS_IN_A_ROW else None
        return Decision(replace=True, pause_seconds=self._pause_seconds(), charge=True, stop=stop)

    def _pause_seconds(self) -> float:
        """The pause before the next start: it doubles with each failed start and death in a row."""
        failures = min(self._failed_starts + self._deaths, _MOST_DOUBLINGS)
        return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**failures)

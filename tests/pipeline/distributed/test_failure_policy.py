"""What follows from the failures of actors: events and decisions, without actors."""

from __future__ import annotations

import pytest

from pipeline.distributed.failure_policy import (
    LONGEST_PAUSE_SECONDS,
    MAX_DEATHS_IN_A_ROW,
    MAX_EXCEPTIONS_IN_A_ROW,
    MAX_FAILED_STARTS,
    ActorLoaded,
    ChunkFailed,
    ChunkFinished,
    Decision,
    FailureKind,
    FailurePolicy,
    IdleActorFailed,
    LoadFailed,
    StopReason,
)

EXCEPTION, DEATH, PREEMPTION, STALL = FailureKind


def failed(kind: FailureKind, *, actor: int = 0, first_attempt: bool = True) -> ChunkFailed:
    return ChunkFailed(actor=actor, kind=kind, first_attempt=first_attempt)


def no_start(kind: FailureKind = DEATH, **facts: bool) -> LoadFailed:
    return LoadFailed(kind=kind, **facts)


LOADED, FINISHED = ActorLoaded(), ChunkFinished(actor=0)
GOES_ON = Decision()
CHARGED = Decision(charge=True)
REQUEUED = Decision(replace=True)


def replaced(pause: float, *, charge: bool = True, stop: StopReason | None = None) -> Decision:
    return Decision(replace=True, pause_seconds=pause, charge=charge, stop=stop)


def not_started(pause: float, stop: StopReason | None = None) -> Decision:
    return replaced(pause, charge=False, stop=stop)


#: Events that came before, the event, and what follows from it.
TABLE = {
    "an actor loads": ([], LOADED, GOES_ON),
    "a chunk is finished": ([LOADED], FINISHED, GOES_ON),
    # -- at a chunk
    "an actor dies": ([LOADED], failed(DEATH), replaced(0.5)),
    "a second dies": ([LOADED, failed(DEATH)], failed(DEATH, actor=1), replaced(1.0)),
    "a chunk between two deaths": ([failed(DEATH), FINISHED], failed(DEATH), replaced(0.5)),
    "an actor stalls": ([LOADED], failed(STALL), replaced(0.5)),
    "an actor is preempted": ([LOADED], failed(PREEMPTION), REQUEUED),
    "a preemption counts for nothing": ([failed(PREEMPTION)] * 99, failed(DEATH), replaced(0.5)),
    "an exception": ([LOADED], failed(EXCEPTION), CHARGED),
    "exceptions of one actor": ([failed(EXCEPTION)] * (MAX_EXCEPTIONS_IN_A_ROW - 1), failed(EXCEPTION), replaced(0.5)),
    "exceptions of several actors": (
        [failed(EXCEPTION, actor=actor) for actor in range(9)],
        failed(EXCEPTION, actor=9),
        CHARGED,
    ),
    "the model cannot be searched": (
        [LOADED, FINISHED],
        ChunkFailed(actor=0, kind=EXCEPTION, first_attempt=True, user_error=True),
        Decision(stop=StopReason.USER_ERROR),
    ),
    "a chunk between exceptions": ([failed(EXCEPTION), failed(EXCEPTION), FINISHED], failed(EXCEPTION), CHARGED),
    "an idle actor dies": ([LOADED], IdleActorFailed(kind=DEATH), not_started(0.5)),
    "an idle actor is preempted": ([LOADED], IdleActorFailed(kind=PREEMPTION), REQUEUED),
    # -- while loading
    "a start fails": ([], no_start(), not_started(0.25)),
    "a second start fails": ([no_start()], no_start(), not_started(0.5)),
    "a start fails after one that did not": ([no_start(), LOADED], no_start(), not_started(0.25)),
    "a start fails after a death": ([failed(DEATH)], no_start(), not_started(0.5)),
    "a start is preempted": ([no_start()], no_start(PREEMPTION), REQUEUED),
    "preempted starts count for nothing": ([no_start(PREEMPTION)] * 99, no_start(), not_started(0.25)),
    "the last start fails": (
        [no_start()] * (MAX_FAILED_STARTS - 1),
        no_start(),
        not_started(1.0, StopReason.STARTS_FAIL),
    ),
    "starts fail while others work": ([no_start(others=True)] * 20, no_start(others=True), not_started(10.0)),
    "a mistake of the user": ([], no_start(EXCEPTION, user_error=True), not_started(0.25, StopReason.USER_ERROR)),
    "a mistake on one machine": ([], no_start(EXCEPTION, user_error=True, others=True), not_started(0.25)),
    "an exception while loading": ([], no_start(EXCEPTION), not_started(0.25)),
    # -- without end
    "deaths before anything is finished": (
        [failed(DEATH, first_attempt=False)] * (MAX_DEATHS_IN_A_ROW - 1),
        failed(DEATH, first_attempt=False),
        replaced(LONGEST_PAUSE_SECONDS, stop=StopReason.ACTORS_DIE),
    ),
    "deaths over chunks that failed before": (
        [FINISHED] + [failed(DEATH, first_attempt=False)] * (3 * MAX_DEATHS_IN_A_ROW),
        failed(DEATH, first_attempt=False),
        replaced(LONGEST_PAUSE_SECONDS),
    ),
    "deaths over chunks that had not failed": (
        [FINISHED] + [failed(DEATH)] * (MAX_DEATHS_IN_A_ROW - 1),
        failed(DEATH),
        replaced(LONGEST_PAUSE_SECONDS, stop=StopReason.ACTORS_DIE),
    ),
}


@pytest.mark.parametrize(("before", "event", "decision"), TABLE.values(), ids=TABLE.keys())
def test_what_follows_from_an_event(before, event, decision):
    """Catches a failure charged to a chunk by mistake, a wrong pause, and a run that stops too early or never."""
    policy = FailurePolicy()
    for earlier in before:
        assert policy.record(earlier).stop is None
    assert policy.record(event) == decision


def test_pauses_grow_with_the_failures():
    """Catches actors that are started as fast as they die."""
    policy = FailurePolicy()
    pauses = [policy.record(no_start(others=True)).pause_seconds for _ in range(9)]
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10]


def test_starts_wait_for_a_first_load_only_while_one_may_come():
    """Catches endless starts on a bad machine while a good one loads, and a search in which none starts any more."""
    policy = FailurePolicy()
    for _ in range(MAX_FAILED_STARTS):
        assert not policy.awaits_first_load(num_ready=0, num_loading=1)
        policy.record(no_start(others=True))
    assert policy.awaits_first_load(num_ready=0, num_loading=1)
    assert not policy.awaits_first_load(num_ready=1, num_loading=1)
    assert not policy.awaits_first_load(num_ready=0, num_loading=0)
    policy.record(LOADED)
    assert not policy.awaits_first_load(num_ready=0, num_loading=1)

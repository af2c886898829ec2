"""Handing out, failing, splitting and copying chunks, without actors."""

from __future__ import annotations

import random

import pytest

from pipeline.distributed.work_queue import MAX_ATTEMPTS, MAX_COPIES, Chunk, Worker, WorkQueue, is_for_another

ANY = Worker(0)


def whole(group, size):
    return Chunk(group, tuple(range(size)))


def finalize_all(work, fate):
    """Hand everything out; ``fate`` says of each chunk whether it is finished, failed or requeued."""
    finalized, handed = [], []
    while not work.is_done:
        chunk = work.take(ANY)
        assert chunk is not None, "nothing waits, and something is left to do"
        handed.append(chunk)
        outcome = fate(chunk)
        if outcome == "finish":
            finalized.append(work.finish(chunk, chunk.indices))
        elif outcome == "fail":
            finalized.append(work.fail(chunk, "boom"))
        else:
            work.requeue(chunk)
    return [group for group in finalized if group is not None], handed


@pytest.mark.parametrize("seed", range(30))
def test_every_example_is_finalized_once_and_what_can_be_searched_in_one_chunk(seed):
    """Catches an example that neither of two halves searches, or both, and rows that tell how it was split."""
    rng = random.Random(seed)
    sizes = {group: rng.randint(1, 9) for group in range(6)}
    bad = {(group, index) for group, size in sizes.items() for index in range(size) if rng.random() < 0.2}
    # Groups that an outage loses, through no fault of their examples.
    outages = {group: rng.choice([0, 0, MAX_ATTEMPTS, MAX_ATTEMPTS + 2]) for group in sizes}

    def fate(chunk):
        if rng.random() < 0.2:
            return "requeue"
        if outages[chunk.group] and len(chunk) > 1:
            outages[chunk.group] -= 1
            return "fail"
        killed = any((chunk.group, index) in bad for index in chunk.indices)
        return "fail" if killed else "finish"

    finalized, _ = finalize_all(WorkQueue(sizes), fate)
    assert sorted(group.group for group in finalized) == list(sizes)
    for group in finalized:
        searched = [index for of_chunk in group.results for index in of_chunk]
        assert sorted([*searched, *group.failed]) == list(range(sizes[group.group]))
        assert {(group.group, index) for index in group.failed} == {one for one in bad if one[0] == group.group}
        assert len(group.results) == (len(searched) > 0) and searched == sorted(searched)


def test_a_bad_example_costs_few_actors():
    """Catches a search for the bad example that takes a group apart example by example."""
    work = WorkQueue({0: 8})
    finalized, handed = finalize_all(work, lambda chunk: "fail" if 3 in chunk.indices else "finish")
    assert finalized[0].failed == {3: "boom"}
    killed = [len(chunk) for chunk in handed if 3 in chunk.indices]
    assert killed == [8] * MAX_ATTEMPTS + [4, 2] + [1] * MAX_ATTEMPTS
    survived = [chunk.indices for chunk in handed if 3 not in chunk.indices]
    assert survived[-1] == (0, 1, 2, 4, 5, 6, 7) and len(survived) == 3 + 1


def test_what_only_works_in_chunks_is_kept_in_chunks():
    """Catches a group that is tried for ever, or given up, because its examples cannot be searched together."""
    finalized, handed = finalize_all(WorkQueue({0: 4}), lambda chunk: "fail" if len(chunk) > 2 else "finish")
    assert finalized[0].results == [(0, 1), (2, 3)] and not finalized[0].failed
    assert [len(chunk) for chunk in handed] == [4] * MAX_ATTEMPTS + [2, 2] + [4] * MAX_ATTEMPTS


def test_failed_chunks_wait_behind_first_attempts():
    """Catches a stretch of bad examples behind which the good ones are never reached."""
    work = WorkQueue({0: 2, 1: 2, 2: 2})
    assert work.fail(work.take(ANY), "boom") is None
    assert [work.take(ANY).group for _ in range(3)] == [1, 2, 0]


def test_a_failed_chunk_is_for_another_actor():
    """Catches a broken actor that fails at the same group three times."""
    work = WorkQueue({0: 2})
    chunk = work.take(ANY)
    assert work.is_first_attempt(chunk)
    first, second = Worker(0, "a"), Worker(1, "a")
    work.fail(chunk, "boom", first)
    assert not work.is_first_attempt(chunk)
    assert work.take(first, [second]) is None
    assert work.take(second, [first]) == chunk
    work.requeue(chunk)
    assert work.take(first, [second]) is None, "the requeue does not undo the failure"


def test_a_chunk_that_failed_is_for_another_machine():
    """Catches a bad machine whose next actor is given what its last one died of, and a chunk that is for no actor."""
    failed, same = Worker(0, "bad"), Worker(1, "bad")
    assert not is_for_another(same, failed, []), "there is no other"
    other = Worker(2, "good")
    assert is_for_another(same, failed, [other]) and not is_for_another(other, failed, [same])
    assert is_for_another(same, same, [other]) and not is_for_another(other, same, [same])
    assert not is_for_another(same, same, [])
    twin = Worker(3, "bad")
    assert is_for_another(same, same, [twin]) and not is_for_another(twin, same, [same])


def test_a_requeued_chunk_never_failed():
    """Catches preemptions that count as failures, and a group that waits behind all others once it was preempted."""
    work = WorkQueue({0: 2, 1: 2})
    for _ in range(4 * MAX_ATTEMPTS):
        chunk = work.take(ANY)
        assert chunk == whole(0, 2) and work.is_first_attempt(chunk)
        work.requeue(chunk)
    assert work.fail(work.take(ANY), "boom") is None
    work.finish(work.take(ANY), "other")
    for _ in range(4 * MAX_ATTEMPTS):
        work.requeue(work.take(ANY))
    assert work.fail(work.take(ANY), "boom") is None
    assert work.take(ANY) == whole(0, 2)


def test_the_first_of_two_copies_counts():
    """Catches rows that are committed twice, a copy of a copy, and a group that fails though a copy is in flight."""
    work = WorkQueue({0: 3})
    chunk = work.take(ANY)
    assert work.take(ANY) is None and work.copy([]) is None
    assert work.copy([chunk]) == chunk and work.copy([chunk]) is None and MAX_COPIES == 2  # type: ignore[list-item]
    assert work.fail(chunk, "boom") is None and len(work) == 0
    assert work.copy([chunk]) == chunk  # type: ignore[list-item]
    finalized = work.finish(chunk, "first")
    assert finalized.results == ["first"] and work.is_done
    assert work.finish(chunk, "second") is None
    assert work.fail(chunk, "boom") is None
    work.requeue(chunk)
    assert len(work) == 0 and not work.is_first_attempt(chunk)


def test_failures_of_copies_count():
    """Catches a bad example whose copies kill actors for ever."""
    work = WorkQueue({0: 1})
    chunk = work.take(ANY)
    work.copy([chunk])  # type: ignore[list-item]
    assert work.fail(chunk, "a") is None and work.fail(chunk, "b") is None
    assert len(work) == 1 and work.take(ANY) == chunk
    finalized = work.fail(chunk, "c")
    assert finalized.failed == {0: "c"} and work.is_done


def test_a_group_may_have_to_wait():
    """Catches a group that starts before the groups that it depends on, and one of those that is never retried."""
    work = WorkQueue({0: 1, 1: 1}, prerequisites=[0])
    assert work.take(ANY) == whole(0, 1) and work.awaits_prerequisites
    assert work.take(ANY) is None
    assert [work.is_in_flight(whole(group, 1)) for group in (0, 1)] == [True, False]
    assert work.most_wanted == 1 + 2
    work.fail(whole(0, 1), "boom")
    assert work.take(ANY) == whole(0, 1)
    work.finish(whole(0, 1), "result")
    assert not work.awaits_prerequisites and work.take(ANY) == whole(1, 1)

"""Handing out, losing, splitting and copying work, without actors."""

from __future__ import annotations

import random

import pytest

from pipeline.distributed.work_queue import MAX_ATTEMPTS, MAX_COPIES, Piece, WorkQueue


def whole(group, size):
    return Piece(group, tuple(range(size)))


def settle_all(work, fate):
    """Hand everything out; ``fate`` says of each piece whether it is finished, lost or given back."""
    settled, handed = [], []
    while not work.settled:
        piece = work.take()
        assert piece is not None, "nothing waits, and something is left to do"
        handed.append(piece)
        outcome = fate(piece)
        if outcome == "finish":
            settled.append(work.finish(piece, piece.places))
        elif outcome == "lose":
            settled.append(work.lose(piece, "boom"))
        else:
            work.give_back(piece)
    return [group for group in settled if group is not None], handed


@pytest.mark.parametrize("seed", range(30))
def test_every_example_is_settled_once_and_what_can_be_searched_in_one_piece(seed):
    """Catches an example that is lost between two halves, or that both search, and rows that tell how it was split."""
    rng = random.Random(seed)
    sizes = {group: rng.randint(1, 9) for group in range(6)}
    bad = {(group, place) for group, size in sizes.items() for place in range(size) if rng.random() < 0.2}
    # Groups that an outage loses, through no fault of their examples.
    outages = {group: rng.choice([0, 0, MAX_ATTEMPTS, MAX_ATTEMPTS + 2]) for group in sizes}

    def fate(piece):
        if rng.random() < 0.2:
            return "give back"
        if outages[piece.group] and len(piece) > 1:
            outages[piece.group] -= 1
            return "lose"
        killed = any((piece.group, place) in bad for place in piece.places)
        return "lose" if killed else "finish"

    settled, _ = settle_all(WorkQueue(sizes), fate)
    assert sorted(group.group for group in settled) == list(sizes)
    for group in settled:
        searched = [place for of_piece in group.results for place in of_piece]
        assert sorted([*searched, *group.failed]) == list(range(sizes[group.group]))
        assert {(group.group, place) for place in group.failed} == {one for one in bad if one[0] == group.group}
        assert len(group.results) == (len(searched) > 0) and searched == sorted(searched)


def test_a_bad_example_costs_few_actors():
    """Catches a search for the bad example that takes a group apart example by example."""
    work = WorkQueue({0: 8})
    settled, handed = settle_all(work, lambda piece: "lose" if 3 in piece.places else "finish")
    assert settled[0].failed == {3: "boom"}
    killed = [len(piece) for piece in handed if 3 in piece.places]
    assert killed == [8] * MAX_ATTEMPTS + [4, 2] + [1] * MAX_ATTEMPTS
    survived = [piece.places for piece in handed if 3 not in piece.places]
    assert survived[-1] == (0, 1, 2, 4, 5, 6, 7) and len(survived) == 3 + 1


def test_what_only_goes_in_pieces_is_kept_in_pieces():
    """Catches a group that is tried for ever, or given up, because its examples cannot be searched together."""
    settled, handed = settle_all(WorkQueue({0: 4}), lambda piece: "lose" if len(piece) > 2 else "finish")
    assert settled[0].results == [(0, 1), (2, 3)] and not settled[0].failed
    assert [len(piece) for piece in handed] == [4] * MAX_ATTEMPTS + [2, 2] + [4] * MAX_ATTEMPTS


def test_what_was_lost_waits_behind_what_nobody_lost():
    """Catches a stretch of bad examples behind which the good ones are never reached."""
    work = WorkQueue({0: 2, 1: 2, 2: 2})
    assert work.lose(work.take(), "boom") is None
    assert [work.take().group for _ in range(3)] == [1, 2, 0]


def test_what_was_lost_is_for_somebody_else():
    """Catches a broken actor that fails at the same group three times."""
    work = WorkQueue({0: 2})
    piece = work.take()
    assert work.is_fresh(piece)
    work.lose(piece, "boom", "first")
    assert not work.is_fresh(piece)
    assert work.take(avoids=lambda loser: loser == "first") is None
    assert work.take(avoids=lambda loser: loser == "second") == piece
    work.give_back(piece)
    assert work.take(avoids=lambda loser: loser == "first") is None, "it was lost all the same"


def test_what_was_given_back_was_never_lost():
    """Catches preemptions that count as failures, and a group that waits behind all others once it was preempted."""
    work = WorkQueue({0: 2, 1: 2})
    for _ in range(4 * MAX_ATTEMPTS):
        piece = work.take()
        assert piece == whole(0, 2) and work.is_fresh(piece)
        work.give_back(piece)
    assert work.lose(work.take(), "boom") is None
    work.finish(work.take(), "other")
    for _ in range(4 * MAX_ATTEMPTS):
        work.give_back(work.take())
    assert work.lose(work.take(), "boom") is None
    assert work.take() == whole(0, 2)


def test_the_first_of_two_copies_counts():
    """Catches rows that are committed twice, a copy of a copy, and a group that is lost though somebody has it."""
    work = WorkQueue({0: 3})
    piece = work.take()
    assert work.take() is None and work.copy(lambda piece: False) is None
    assert work.copy() == piece and work.copy() is None and MAX_COPIES == 2
    assert work.lose(piece, "boom") is None and len(work) == 0
    assert work.copy() == piece
    settled = work.finish(piece, "first")
    assert settled.results == ["first"] and work.settled
    assert work.finish(piece, "second") is None
    assert work.lose(piece, "boom") is None
    work.give_back(piece)
    assert len(work) == 0 and not work.is_fresh(piece)


def test_losses_of_copies_count():
    """Catches a bad example whose copies kill actors for ever."""
    work = WorkQueue({0: 1})
    piece = work.take()
    work.copy()
    assert work.lose(piece, "a") is None and work.lose(piece, "b") is None
    assert len(work) == 1 and work.take() == piece
    settled = work.lose(piece, "c")
    assert settled.failed == {0: "c"} and work.settled


def test_a_group_may_have_to_wait():
    """Catches a group that starts before what it must know is there, and one that others wait for and nobody tries."""
    work = WorkQueue({0: 1, 1: 1})
    assert work.take(lambda group: group == 1) is None
    assert work.take(lambda group: group == 0) == whole(0, 1)
    assert [work.is_open(whole(group, 1)) for group in (0, 1)] == [True, False]
    assert work.most_wanted == 1 + 2
    work.lose(whole(0, 1), "boom")
    assert work.take(lambda group: group == 0) == whole(0, 1)

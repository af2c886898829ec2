"""Handing out, losing, splitting and copying work, without actors."""

from __future__ import annotations

import random

import pytest

from pipeline.worklist import MAX_ATTEMPTS, MAX_COPIES, Piece, Worklist


def settle_all(work, fate):
    """Hand everything out; ``fate`` says of each piece whether it is finished, lost or given back."""
    settled, handed = [], []
    while not work.settled:
        piece = work.take()
        assert piece is not None, "nothing waits, and something is left to do"
        handed.append(piece)
        outcome = fate(piece)
        if outcome == "finish":
            settled.append(work.finish(piece, f"{piece.start}-{piece.stop}"))
        elif outcome == "lose":
            settled.append(work.lose(piece, "boom"))
        else:
            work.give_back(piece)
    return [group for group in settled if group is not None], handed


@pytest.mark.parametrize("seed", range(30))
def test_every_example_is_settled_once(seed):
    """Catches an example that is lost between the halves of its group, or that two of them search."""
    rng = random.Random(seed)
    sizes = {group: rng.randint(1, 9) for group in range(6)}
    bad = {(group, place) for group, size in sizes.items() for place in range(size) if rng.random() < 0.2}

    def fate(piece):
        if rng.random() < 0.2:
            return "give back"
        killed = any((piece.group, place) in bad for place in range(piece.start, piece.stop))
        return "lose" if killed else "finish"

    settled, _ = settle_all(Worklist(sizes), fate)
    assert sorted(group.group for group in settled) == list(sizes)
    for group in settled:
        places = [range(*map(int, result.split("-"))) for result in group.results]
        searched = [place for of_piece in places for place in of_piece]
        assert searched == sorted(searched), "results lie in the order of the examples"
        assert sorted([*searched, *group.failed]) == list(range(sizes[group.group]))
        assert {(group.group, place) for place in group.failed} == {one for one in bad if one[0] == group.group}


def test_a_bad_example_costs_few_actors():
    """Catches a search for the bad example that takes a group apart example by example."""
    work = Worklist({0: 8})
    settled, handed = settle_all(work, lambda piece: "lose" if piece.start <= 3 < piece.stop else "finish")
    assert settled[0].failed == {3: "boom"}
    killed = [len(piece) for piece in handed if piece.start <= 3 < piece.stop]
    assert killed == [8] * MAX_ATTEMPTS + [4, 2] + [1] * MAX_ATTEMPTS
    assert len(handed) - len(killed) == 3


def test_what_was_given_back_was_never_lost():
    """Catches preemptions that count as failures, and a group that waits behind all others once it was preempted."""
    work = Worklist({0: 2, 1: 2})
    for _ in range(4 * MAX_ATTEMPTS):
        piece = work.take()
        assert piece == Piece(0, 0, 2)
        work.give_back(piece)
    for _ in range(MAX_ATTEMPTS - 1):
        assert work.lose(work.take(), "boom") is None
    assert work.take() == Piece(0, 0, 2)


def test_the_first_of_two_copies_counts():
    """Catches rows that are committed twice, a copy of a copy, and a group that is lost though somebody has it."""
    work = Worklist({0: 3})
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
    assert len(work) == 0


def test_losses_of_copies_count():
    """Catches a bad example whose copies kill actors for ever."""
    work = Worklist({0: 1})
    piece = work.take()
    work.copy()
    assert work.lose(piece, "a") is None and work.lose(piece, "b") is None
    assert len(work) == 1 and work.take() == piece
    settled = work.lose(piece, "c")
    assert settled.failed == {0: "c"} and work.settled


def test_a_group_may_have_to_wait():
    """Catches a group that starts before what it must know is there."""
    work = Worklist({0: 1, 1: 1})
    assert work.take(lambda group: group == 1) is None
    assert work.take(lambda group: group == 0) == Piece(0, 0, 1)
    assert [work.is_open(Piece(group, 0, 1)) for group in (0, 1)] == [True, False]
    assert work.most_wanted == 1 + 2

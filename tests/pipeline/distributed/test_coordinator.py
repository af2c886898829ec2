"""What the coordinator makes of failures, without a cluster: who pays for them, and when it gives up."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError
from shard_rows import CONFIG, opened, reopened, rows

from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.coordinator import (
    MAX_DEATHS_IN_A_ROW,
    MAX_EXCEPTIONS_IN_A_ROW,
    MAX_FAILED_STARTS,
    Coordinator,
    _SearchActor,
)
from pipeline.distributed.evaluator import GroupResult
from pipeline.distributed.work_queue import MAX_ATTEMPTS, Piece
from pipeline.errors import StoppedError, UserError
from pipeline.prior import Evaluation, fit_prior
from pipeline.program import LayerProgram
from pipeline.shards.run_folder import RunFolder
from pipeline.tasks import Example

POOL = PoolConfig(num_actors=2, cpus_per_actor=1, gpus_per_actor=0.0)


def died(*, preempted: bool = False) -> RayActorError:
    return RayActorError(error_msg="the actor died:\n  its node ran out of memory", preempted=preempted)


@pytest.fixture
def coordinator(tmp_path) -> Coordinator:
    """Twenty examples in groups of eight, none of them committed."""
    examples = [Example(id=f"q{n}", task="arithmetic", question="1 + 1 =", answer="2") for n in range(20)]
    return Coordinator(config=CONFIG, pool=POOL, examples=examples, folder=opened(tmp_path / "run"), committed={})


def failed_ids(coordinator: Coordinator) -> list[str]:
    files = sorted((coordinator._folder.root / "failed").glob("*.jsonl"))
    return [json.loads(line)["example_id"] for file in files for line in file.read_text().splitlines()]


def test_groups_are_fixed_runs_of_the_examples(coordinator):
    """Catches groups whose composition depends on what is left to do: their rows would too."""
    assert [[example.id for example in group] for group in coordinator._groups] == [
        [f"q{n}" for n in range(start, min(start + 8, 20))] for start in (0, 8, 16)
    ]


def test_a_preemption_costs_no_retry(coordinator, mortal):
    """Catches spot machines that use up the retries of groups that are fine."""
    for _ in range(5 * MAX_ATTEMPTS):
        coordinator._take_back(mortal(loaded=True), coordinator._work.take(), died(preempted=True))
    taken = [coordinator._work.take() for _ in range(3)]
    assert [(piece.group, len(piece)) for piece in taken] == [(0, 8), (1, 8), (2, 4)]
    assert failed_ids(coordinator) == []


def test_an_example_that_kills_its_actors_is_alone_set_aside(coordinator, mortal):
    """Catches a run that tries a bad example for ever, that gives up its neighbours, and an error without its cause."""
    lost = []
    while (piece := coordinator._work.take()) is not None:
        if 5 in piece.places and piece.group == 0:
            lost.append(len(piece))
            coordinator._take_back(mortal(loaded=True), piece, died())
        elif piece.group == 0:
            found = [row for place in piece.places for row in rows(f"q{place}")]
            result = GroupResult(rows=found, failed={}, evaluations=[])
            coordinator._settle(coordinator._work.finish(piece, result))
    assert lost == [8] * MAX_ATTEMPTS + [4, 2] + [1] * MAX_ATTEMPTS
    assert failed_ids(coordinator) == ["q5"]
    assert "ran out of memory" in (coordinator._folder.root / "failed" / "group-000000.jsonl").read_text()
    [record] = coordinator.progress.committed
    assert record.example_ids == [f"q{n}" for n in range(8) if n != 5] and list(record.failed) == ["q5"]
    assert coordinator.progress.failed_examples == 1 and not coordinator.progress.complete


def test_a_group_of_which_nothing_can_be_searched_is_tried_again_next_time(coordinator, mortal):
    """Catches an outage that is taken for bad examples once and for all."""
    while (piece := coordinator._work.take()) is not None:
        if piece.group == 0:
            coordinator._take_back(mortal(loaded=True), piece, died())
    assert failed_ids(coordinator) == [f"q{n}" for n in range(8)]
    assert coordinator.progress.failed_examples == 8 and not coordinator.progress.committed
    coordinator._folder.clear_failures(reopened(coordinator._folder))
    assert failed_ids(coordinator) == []


@pytest.fixture
def mortal(coordinator, monkeypatch):
    """A coordinator whose actors stand for nothing."""
    monkeypatch.setattr(ray, "kill", lambda actor: None)

    def worker(**fields) -> _SearchActor:
        coordinator._workers.append(_SearchActor(actor=None, **{"call": None, **fields}))
        coordinator.progress.actors_ready += fields.get("loaded", False)
        return coordinator._workers[-1]

    return worker


def ending(coordinator, monkeypatch, error):
    """Let the calls of actors end so, until the run does."""
    monkeypatch.setattr(ray, "get", lambda call: (_ for _ in ()).throw(error))

    def end(worker):
        worker.piece = coordinator._work.take()
        assert worker.piece is not None
        coordinator._finish(worker)

    return end


@pytest.fixture
def many(tmp_path) -> Coordinator:
    """Seventy groups of eight."""
    examples = [Example(id=f"q{n}", task="arithmetic", question="1 + 1 =", answer="2") for n in range(560)]
    return Coordinator(config=CONFIG, pool=POOL, examples=examples, folder=opened(tmp_path / "many"), committed={})


@pytest.mark.parametrize("some_finished", [False, True])
def test_deaths_without_end_end_the_run(many, monkeypatch, some_finished):
    """Catches a broken cluster on which a long run sets all of its examples aside, whether or not it ever worked."""
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    end = ending(many, monkeypatch, died())
    many._any_finished = some_finished
    with pytest.raises(StoppedError, match=r"50 actors died one after the other .*ran out of memory"):
        for _ in range(MAX_DEATHS_IN_A_ROW):
            assert many._deaths_in_a_row < MAX_DEATHS_IN_A_ROW
            many._workers.append(_SearchActor(actor=None, call=None, loaded=True))
            many.progress.actors_ready += 1
            end(many._workers[-1])
    assert many.progress.actors_ready == 0 and many.progress.actors_lost == MAX_DEATHS_IN_A_ROW
    assert many.progress.failed_examples == 0


def test_bad_examples_do_not_end_a_run_that_gets_on(coordinator, mortal, monkeypatch):
    """Catches a stretch of bad examples that is taken for a broken cluster, in every call again."""
    end, deaths = ending(coordinator, monkeypatch, died()), 0
    coordinator._any_finished = True
    while not coordinator._work.settled:
        end(mortal(loaded=True))
        deaths += 1
    assert deaths > MAX_DEATHS_IN_A_ROW and coordinator.progress.failed_examples == 20


def test_an_actor_that_fails_at_everything_is_replaced(coordinator, mortal, monkeypatch):
    """Catches a GPU that answers nothing any more and is given one group after the other, and the same one again."""
    monkeypatch.setattr(coordinator, "_start_worker", lambda: mortal())
    broken, other = mortal(loaded=True, node="a"), mortal(loaded=True, node="a")
    end = ending(coordinator, monkeypatch, RayTaskError("search", "", RuntimeError("illegal memory access")))
    for failures in range(1, MAX_EXCEPTIONS_IN_A_ROW + 1):
        assert broken in coordinator._workers and coordinator.progress.actors_lost == 0
        end(broken)
        assert broken.exceptions_in_a_row == failures
    assert broken not in coordinator._workers and coordinator.progress.actors_lost == 1
    lost = [coordinator._work._lost[Piece(group, tuple(range(size)))] for group, size in ((0, 8), (1, 8), (2, 4))]
    assert lost == [1, 1, 1], "each group pays once"
    assert other in coordinator._workers and coordinator.progress.failed_examples == 0


def test_what_one_machine_lost_is_for_another(coordinator, mortal):
    """Catches a bad machine whose next actor is given what its last one died of, and a group that is for nobody."""
    lost = mortal(loaded=True, node="bad")
    coordinator._workers.remove(lost)
    same = mortal(loaded=True, node="bad")
    assert not coordinator._avoids(same, lost), "there is nobody else"
    other = mortal(loaded=True, node="good")
    assert coordinator._avoids(same, lost) and not coordinator._avoids(other, lost)
    assert coordinator._avoids(same, same) and not coordinator._avoids(other, same)
    coordinator._workers.remove(other)
    assert not coordinator._avoids(same, same)
    twin = mortal(loaded=True, node="bad")
    assert coordinator._avoids(same, same) and not coordinator._avoids(twin, same)


def test_an_idle_actor_that_dies_is_noticed(coordinator, mortal, monkeypatch):
    """Catches dead actors that are handed groups once calibration is over, which pay for it."""
    idle, busy = mortal(loaded=True), mortal(loaded=True, call="search", piece=coordinator._work.take())
    monkeypatch.setattr(ray, "wait", lambda calls, **_: (calls, []))
    monkeypatch.setattr(ray, "get", lambda call: (_ for _ in ()).throw(died()))
    coordinator._polls = {"poll of idle": idle, "poll of busy": busy}
    coordinator._next_poll = time.monotonic() + 60
    coordinator._poll_activity()
    assert coordinator._workers == [busy] and coordinator.progress.actors_lost == 1
    assert len(coordinator._work) == 2 and not coordinator._work._lost


def test_starts_that_fail_end_the_run_only_while_nobody_works(coordinator, mortal):
    """Catches a long run that a few lost machines abort, and one that starts actors for ever."""
    somebody = mortal(loaded=True)
    for _ in range(3 * MAX_FAILED_STARTS):
        coordinator._start_failed(mortal(), died())
    coordinator._bury(somebody, died())
    with pytest.raises(UserError, match=r"while they load the model .*ran out of memory"):
        coordinator._start_failed(mortal(), died())


def test_a_mistake_of_the_user_ends_the_run_at_once(coordinator, mortal):
    """Catches a model outside the contract that is loaded three times before somebody is told."""
    with pytest.raises(UserError, match="no such thing"):
        coordinator._start_failed(mortal(), UserError("no such thing"))


def test_what_one_node_lacks_others_may_have(coordinator, mortal, monkeypatch):
    """Catches a run that ends because a single node has no such file, however often, while others are still loading."""
    monkeypatch.setattr(coordinator, "_start_worker", lambda: _SearchActor(actor=None, call="loading again"))
    coordinator._num_actors, other = 2, mortal(call="loading")
    for failed in range(1, 3 * MAX_FAILED_STARTS):
        coordinator._start_failed(mortal(), UserError("no such folder"))
        coordinator._next_start = 0.0
        coordinator._fill_pool()
        started = [worker for worker in coordinator._workers if worker is not other]
        assert len(started) == (failed < MAX_FAILED_STARTS), "nobody else is started until the other one has loaded"
        coordinator._workers[:] = [other]
    other.began -= coordinator._stall_seconds  # it hangs
    with pytest.raises(UserError, match="no such folder"):
        coordinator._start_failed(mortal(), UserError("no such folder"))


def test_the_death_of_the_last_that_loaded_leaves_nobody_waiting(coordinator, mortal, monkeypatch):
    """Catches a search that hangs: many starts have failed on a bad node, and then the one actor that worked dies."""
    monkeypatch.setattr(coordinator, "_start_worker", lambda: _SearchActor(actor=None, call="loading"))
    worked = mortal(loaded=True, call="search", piece=coordinator._work.take())
    for _ in range(2 * MAX_FAILED_STARTS):
        coordinator._start_failed(mortal(), died())
    coordinator._bury(worked, died())
    coordinator._next_start = 0.0
    coordinator._fill_pool()
    assert coordinator._workers


def test_pauses_grow_with_the_deaths(coordinator, mortal):
    """Catches actors that are started as fast as they die, and a preemption that others wait for."""
    waits = []
    for _ in range(9):
        coordinator._start_failed(mortal(), died(preempted=True))
        assert coordinator._next_start == 0.0
    mortal(loaded=True)
    for _ in range(9):
        before = time.monotonic()
        coordinator._start_failed(mortal(), died())
        waits.append(coordinator._next_start - before)
    assert waits == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 10, 10, 10], abs=0.05)


def test_a_resumed_run_counts_what_is_committed_already(tmp_path):
    """Catches sums that begin at nothing, or that count a committed group twice."""
    folder = opened(tmp_path / "run")
    folder.commit(0, rows("q0") + rows("q1"), {"q2": "ValueError: too long"})
    examples = [Example(id=f"q{n}", task="arithmetic", question="1 + 1 =", answer="2") for n in range(9)]
    committed = reopened(folder)
    progress = Coordinator(config=CONFIG, pool=POOL, examples=examples, folder=folder, committed=committed).progress
    assert (progress.done, progress.resumed_examples, progress.failed_examples) == (2, 2, 1)
    assert (progress.baseline_correct, progress.shorter, progress.corrected) == (2, 2, 0)
    progress.add(folder.commit(1, rows("q8")))
    assert (progress.done, progress.resumed_examples, progress.shorter, len(progress.committed)) == (3, 2, 3, 2)


def test_the_pool_shrinks_with_the_queue(coordinator, mortal, monkeypatch):
    """Catches actors that hold a cluster's cores until the last example is done, and nobody left for a copy."""
    coordinator._pool = dataclasses.replace(POOL, num_actors=9)
    coordinator._num_actors = 9
    workers = [mortal(loaded=True) for _ in range(9)]
    for worker in workers:
        worker.actor = IdleActor()
    handed = [coordinator._work.take() for _ in range(2)]
    coordinator._settle(coordinator._work.finish(handed[0], GroupResult(rows=rows("q0"), failed={}, evaluations=[])))
    coordinator._fill_pool()
    # One piece is under way and another now, each of which may need a copy.
    assert len(coordinator._workers) == 4 and coordinator.progress.actors_ready == 4


# -- calibration ---------------------------------------------------------------------------


class IdleActor:
    """Stands in for an actor: notes what it is handed."""

    def __init__(self):
        self.search = self
        self.handed = []

    def remote(self, examples, prior, teaches):
        # The first two groups, whatever prior there is: the others are searched in the run's own space.
        assert teaches == (examples[0].id in ("q0", "q8"))
        self.handed.append((examples[0].id, prior))
        return f"call {len(self.handed)}"


@pytest.fixture
def teaching(tmp_path, monkeypatch) -> Coordinator:
    """Forty examples in groups of eight; the first two groups teach."""
    monkeypatch.setattr(ray, "put", lambda prior: prior)
    config = dataclasses.replace(CONFIG, calibration=9)
    examples = [Example(id=f"q{n}", task="arithmetic", question="1 + 1 =", answer="2") for n in range(40)]
    folder = RunFolder(tmp_path / "run")
    committed = folder.open(config, provenance={})
    pool = dataclasses.replace(POOL, num_actors=3)
    coordinator = Coordinator(config=config, pool=pool, examples=examples, folder=folder, committed=committed)
    coordinator._workers = [_SearchActor(actor=IdleActor(), call=None) for _ in range(3)]
    coordinator._learn_if_taught()
    return coordinator


def finish(coordinator: Coordinator, monkeypatch, worker: _SearchActor) -> None:
    """An actor's group comes back with what it tried."""
    example = coordinator._groups[worker.piece.group][0].id
    result = GroupResult(rows=rows(example), failed={}, evaluations=lessons(example))
    monkeypatch.setattr(ray, "get", lambda call: result)
    coordinator._finish(worker)


def lessons(example: str) -> list[Evaluation]:
    programs = [LayerProgram((0, 1, 2), 3), LayerProgram((0, 2), 3)]
    return [Evaluation(example_id=example, program=program, correct=True, margin=1.0) for program in programs]


def test_the_other_groups_wait_for_what_calibration_groups_teach(teaching, monkeypatch):
    """Catches a group that is searched before the prior is there: its rows would depend on who was quick."""
    first, second, third = teaching._workers
    teaching._fill_pool()
    assert teaching.progress.calibrating
    assert [worker.actor.handed for worker in teaching._workers] == [[("q0", None)], [("q8", None)], []]
    finish(teaching, monkeypatch, second)
    teaching._fill_pool()
    assert not second.actor.handed[1:] and teaching._folder.prior() is None
    finish(teaching, monkeypatch, first)
    teaching._fill_pool()
    prior = teaching._folder.prior()
    assert prior.num_questions == 2 and not teaching.progress.calibrating
    handed = [worker.actor.handed[-1] for worker in (first, second, third)]
    assert [example for example, _ in handed] == ["q16", "q24", "q32"]
    assert {given.fingerprint for _, given in handed} == {prior.fingerprint}


def test_the_prior_does_not_depend_on_who_finished_first(teaching, monkeypatch):
    """Catches lessons that are read in the order in which they came."""
    first, second, _ = teaching._workers
    teaching._fill_pool()
    finish(teaching, monkeypatch, second)
    finish(teaching, monkeypatch, first)
    expected = fit_prior(lessons("q0") + lessons("q8"), compare_margins=True)
    assert teaching._folder.prior().fingerprint == expected.fingerprint


def test_a_calibration_group_that_cannot_be_searched_ends_the_run(teaching, monkeypatch):
    """Catches a prior, and so all other rows, that depend on an outage while calibration groups were searched."""
    first = teaching._workers[0]
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    teaching._fill_pool()
    lost, first.piece, first.call = first.piece, None, None
    with pytest.raises(StoppedError, match=r"calibration group 0 .*ran out of memory.*--calibration 0"):
        while lost is not None:
            teaching._take_back(first, lost, died())
            lost = teaching._work.take(lambda group: group == 0)
    assert teaching._folder.prior() is None
    # The next call searches it, and everything is as if nothing had been.
    reopened = Coordinator(
        config=teaching._config,
        pool=teaching._pool,
        examples=[example for group in teaching._groups for example in group],
        folder=teaching._folder,
        committed={},
    )
    assert reopened._teaching == {0, 1}


def test_a_prior_of_another_depth_ends_the_run_with_a_sentence(teaching):
    """Catches a given prior that fails inside every actor instead."""
    teaching._folder.write_prior(fit_prior(lessons("q0"), compare_margins=True))
    teaching._check_prior(3)
    with pytest.raises(UserError, match="a model of 3 layers, this one has 4"):
        teaching._check_prior(4)

"""A search whose actors fail, simulated: what is committed, which examples are set aside, and when it ends."""

from __future__ import annotations

import dataclasses
import json

import pytest
from shard_rows import CONFIG, opened, reopened, rows
from simulated_actors import NEVER, SimulatedActors, evaluations, failure

from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.coordinator import FEW_PREVIEWED, Coordinator, work_groups
from pipeline.distributed.evaluator import Loaded
from pipeline.distributed.failure_policy import (
    MAX_DEATHS_IN_A_ROW,
    MAX_EXCEPTIONS_IN_A_ROW,
    MAX_FAILED_STARTS,
    FailureKind,
)
from pipeline.distributed.installation import installation
from pipeline.distributed.search_actors import failure_of
from pipeline.distributed.work_queue import MAX_ATTEMPTS
from pipeline.errors import StoppedError, UserError
from pipeline.prior import fit_prior
from pipeline.shards.run_folder import RunFolder
from pipeline.tasks import Example

EXCEPTION, DEATH, PREEMPTION, STALL = FailureKind
POOL = PoolConfig(num_actors=2, cpus_per_actor=1, gpus_per_actor=0.0)


def examples_of(number: int) -> list[Example]:
    return [Example(id=f"q{n}", task="arithmetic", question="1 + 1 =", answer="2") for n in range(number)]


@pytest.fixture
def search(tmp_path):
    """Makes coordinators; by default of twenty examples in groups of eight, two actors and a new folder."""

    def make(actors, *, examples=20, config=CONFIG, folder=None, committed=None, num_actors=2, **options):
        if folder is None:
            folder = RunFolder(tmp_path / "run")
            committed = folder.open(config, provenance={})
        return Coordinator(
            config=config,
            pool=dataclasses.replace(POOL, num_actors=num_actors),
            examples=examples_of(examples),
            folder=folder,
            committed=committed or {},
            actors=actors,
            **options,
        )

    return make


def failed_ids(run) -> list[str]:
    files = sorted((run / "failed").glob("*.jsonl"))
    return [json.loads(line)["example_id"] for file in files for line in file.read_text().splitlines()]


def fails_at(*ids: str, kind: FailureKind = DEATH):
    """Actors fail whenever one of these examples is among those that they are given."""
    return lambda actor, examples: failure(kind) if {example.id for example in examples} & set(ids) else None


def test_the_base_model_answers_the_first_examples_once_and_before_its_actor_searches(search):
    """Catches a preview that every actor gives, that comes after the search, or that a resumed run repeats."""
    asked, shown = [], []

    def on_preview(actor, examples):
        asked.append((actor, [example.id for example in examples], len(actors.handed)))
        return ["an answer"]

    actors = SimulatedActors(on_preview=on_preview)
    assert search(actors, examples=50, preview=shown.append).run().complete
    assert asked == [(0, [f"q{n}" for n in range(32)], 0)] and shown == [["an answer"]]


def test_fewer_examples_are_previewed_where_answers_are_long(search):
    """Catches a search that seems to stand while 32 solutions are written."""
    asked = []
    actors = SimulatedActors(on_preview=lambda actor, examples: asked.append(len(examples)))
    search(actors, examples=50, preview=lambda answers: None, num_previewed=FEW_PREVIEWED).run()
    assert asked == [8]


@pytest.mark.parametrize("kind", [EXCEPTION, DEATH, PREEMPTION])
def test_a_search_goes_on_without_the_base_models_answers(search, kind):
    """Catches a run that stops, repeats the preview or keeps a dead actor because the preview failed."""
    shown = []
    actors = SimulatedActors(on_preview=lambda actor, examples: failure(kind))
    progress = search(actors, preview=shown.append).run()
    assert progress.complete and not shown
    assert progress.actors_lost == (kind is not EXCEPTION)


def test_a_preview_that_hangs_is_left_out(search):
    """Catches an actor that is lost to a run whose preview never ends."""
    seconds = {"preview": NEVER}
    actors = SimulatedActors(seconds=lambda actor, examples: seconds.pop("preview", 1.0))
    progress = search(actors, num_actors=1, preview=lambda answers: None, stall_seconds=5.0).run()
    assert progress.complete and progress.actors_lost == 1


def test_groups_are_fixed_runs_of_the_examples():
    """Catches groups whose composition depends on what is left to do: their rows would too."""
    assert [[example.id for example in group] for group in work_groups(examples_of(20), 8)] == [
        [f"q{n}" for n in range(start, min(start + 8, 20))] for start in (0, 8, 16)
    ]


def test_a_run_commits_every_example_and_leaves_no_actor(search, tmp_path):
    """Catches a group that is never handed out, one that is committed twice, and actors that outlive the run."""
    actors = SimulatedActors()
    progress = search(actors).run()
    assert progress.complete and progress.done == 20 and progress.actors_lost == 0
    assert sorted(record.group for record in progress.committed) == [0, 1, 2]
    assert actors.alive == 0 and len(actors.started) == 2


def test_a_preemption_costs_no_retry(search, tmp_path):
    """Catches spot machines that use up the retries of groups that are fine."""
    preempted = iter(range(5 * MAX_ATTEMPTS))
    actors = SimulatedActors(on_search=lambda *_: failure(PREEMPTION) if next(preempted, None) is not None else None)
    progress = search(actors).run()
    assert progress.complete and progress.actors_lost == 5 * MAX_ATTEMPTS
    assert failed_ids(tmp_path / "run") == []
    assert {len(handed.ids) for handed in actors.handed} == {8, 4}, "no group was split"


def test_an_example_that_kills_its_actors_is_alone_set_aside(search, tmp_path):
    """Catches a run that tries a bad example for ever, that gives up its neighbours, and an error without its cause."""
    actors = SimulatedActors(on_search=fails_at("q5"))
    progress = search(actors).run()
    assert [len(handed.ids) for handed in actors.handed if "q5" in handed.ids] == [8] * MAX_ATTEMPTS + [4, 2] + [
        1
    ] * MAX_ATTEMPTS
    assert failed_ids(tmp_path / "run") == ["q5"]
    assert "ran out of memory" in (tmp_path / "run" / "failed" / "group-000000.jsonl").read_text()
    [record] = [record for record in progress.committed if record.group == 0]
    assert record.example_ids == [f"q{n}" for n in range(8) if n != 5] and list(record.failed) == ["q5"]
    assert progress.failed_examples == 1 and not progress.complete


def test_a_group_of_which_nothing_can_be_searched_is_tried_again_next_time(search, tmp_path):
    """Catches an outage that is taken for bad examples once and for all."""
    bad = [f"q{n}" for n in range(8)]
    progress = search(SimulatedActors(on_search=fails_at(*bad))).run()
    assert failed_ids(tmp_path / "run") == bad
    assert progress.failed_examples == 8 and sorted(record.group for record in progress.committed) == [1, 2]
    folder = RunFolder(tmp_path / "run")
    committed = folder.open(CONFIG, provenance={})
    folder.clear_failures(committed)
    assert failed_ids(tmp_path / "run") == []
    assert search(SimulatedActors(), folder=folder, committed=committed).run().complete


def test_a_model_that_cannot_be_searched_ends_the_run(search, tmp_path):
    """Catches a run of which every example is set aside, since the base model overflows on each of them."""
    overflow = failure(EXCEPTION, UserError("the logits of the base model are not finite numbers in float16"))
    actors = SimulatedActors(on_search=lambda _, examples: None if examples[0].id == "q0" else overflow)
    coordinator = search(actors, num_actors=1)
    with pytest.raises(UserError, match="not finite numbers in float16") as stopped:
        coordinator.run()
    assert type(stopped.value) is UserError and actors.alive == 0
    assert [record.group for record in coordinator.progress.committed] == [0]
    assert failed_ids(tmp_path / "run") == []


@pytest.mark.parametrize("some_finished", [False, True])
def test_deaths_without_end_end_the_run(search, some_finished):
    """Catches a broken cluster on which a long run sets all of its examples aside, whether or not it ever worked."""
    works = iter([True] if some_finished else [])
    actors = SimulatedActors(on_search=lambda *_: None if next(works, False) else failure(DEATH))
    coordinator = search(actors, examples=560)
    with pytest.raises(StoppedError, match=r"50 actors died one after the other .*ran out of memory"):
        coordinator.run()
    assert actors.alive == 0 and coordinator.progress.actors_lost == MAX_DEATHS_IN_A_ROW
    assert coordinator.progress.failed_examples == 0


def test_bad_examples_do_not_end_a_run_that_gets_on(search):
    """Catches a stretch of bad examples that is taken for a broken cluster, in every call again."""
    bad = [f"q{n}" for n in range(8, 28)]
    progress = search(SimulatedActors(on_search=fails_at(*bad)), examples=28).run()
    assert progress.actors_lost > MAX_DEATHS_IN_A_ROW and progress.failed_examples == 20 and progress.done == 8


def test_an_actor_that_fails_at_everything_is_replaced(search):
    """Catches a GPU that answers nothing any more and is given one group after the other, and the same one again."""
    broken = failure(EXCEPTION, RuntimeError("illegal memory access"))
    # The other one takes its time, so that the broken one is given most.
    actors = SimulatedActors(
        on_search=lambda actor, _: broken if actor == 0 else None, seconds=lambda actor, _: 1.0 if actor == 0 else 9.0
    )
    progress = search(actors, examples=40).run()
    given = [handed.ids for handed in actors.handed if handed.actor == 0]
    assert len(given) == MAX_EXCEPTIONS_IN_A_ROW and len({tuple(ids) for ids in given}) == len(given)
    assert progress.actors_lost == 1 and progress.failed_examples == 0 and progress.complete


def test_an_idle_actor_that_dies_is_noticed(search):
    """Catches dead actors that are handed groups once calibration is over, which pay for it."""
    config = dataclasses.replace(CONFIG, calibration=8)
    # One calibration group and two actors: the second is idle until the first has finished.
    actors = SimulatedActors(
        on_activity=lambda actor: failure(DEATH) if actor == 1 else None, seconds=lambda actor, _: 3.0
    )
    progress = search(actors, config=config).run()
    assert progress.actors_lost >= 1 and progress.complete
    assert {handed.actor for handed in actors.handed}.isdisjoint({1})
    assert all(len(handed.ids) in (8, 4) for handed in actors.handed)


def test_a_stalled_actor_is_replaced(search):
    """Catches a run that waits for ever for an actor that hangs, and one that takes a slow actor for a stalled one."""
    actors = SimulatedActors(
        on_activity=lambda actor: (0, 0) if actor == 0 else None,
        seconds=lambda actor, _: NEVER if actor == 0 else 40.0,
    )
    progress = search(actors, stall_seconds=10.0).run()
    assert progress.complete and progress.actors_lost == 1 and 0 in actors.ended


def test_starts_that_fail_end_the_run_only_while_no_actor_works(search):
    """Catches a long run that a few lost machines abort, and one that starts actors for ever."""
    # The first actor loads, and dies at its fourth group; all others fail to load.
    actors = SimulatedActors(
        on_load=lambda actor: failure(DEATH) if actor else None,
        on_search=lambda actor, examples: failure(DEATH) if examples[0].id == "q64" else None,
        seconds=lambda actor, _: 30.0,
    )
    coordinator = search(actors, examples=80)
    with pytest.raises(StoppedError, match=r"while they load the model .*ran out of memory"):
        coordinator.run()
    assert len(actors.started) > 3 * MAX_FAILED_STARTS and coordinator.progress.done == 64


def test_a_mistake_of_the_user_ends_the_run_at_once(search):
    """Catches a model outside the contract that is loaded three times before the error reaches the user."""
    actors = SimulatedActors(on_load=lambda actor: failure(EXCEPTION, UserError("no such thing")))
    with pytest.raises(UserError, match=r"^no such thing$"):
        search(actors, num_actors=1).run()
    assert len(actors.started) == 1


def test_an_actor_of_another_installation_ends_the_run_by_name(search):
    """Catches rows of two releases in one run."""
    other = dataclasses.replace(installation(), path="/elsewhere", source="0123")
    mixed = SimulatedActors(on_load=lambda actor: Loaded(facts={"num_layers": 3}, installation=other, node="a"))
    with pytest.raises(UserError, match="from /elsewhere"):
        search(mixed).run()


def test_what_one_node_lacks_others_may_have(search):
    """Catches a run that ends because a single node has no such file, however often, while others are still loading."""
    actors = SimulatedActors(
        on_load=lambda actor: failure(EXCEPTION, UserError("no such folder")) if actor else None,
        load_seconds=lambda actor: 0.1 if actor else 300.0,
    )
    progress = search(actors).run()
    assert progress.complete
    before_the_first_load = [start for start in actors.started if start < 300.0]
    assert len(before_the_first_load) == 1 + MAX_FAILED_STARTS, "none is started until the other one has loaded"


def test_an_actor_that_hangs_while_it_loads_is_not_waited_for(search):
    """Catches a run that waits for ever for an actor that will never load, while all others fail."""
    actors = SimulatedActors(
        on_load=lambda actor: failure(EXCEPTION, UserError("no such folder")) if actor else None,
        load_seconds=lambda actor: 0.1 if actor else NEVER,
    )
    with pytest.raises(UserError, match="no such folder"):
        search(actors, stall_seconds=60.0).run()
    assert 60.0 <= actors.clock < 120.0


def test_the_death_of_the_last_that_loaded_leaves_no_run_waiting(search):
    """Catches a search that hangs: many starts have failed on a bad node, and then the one actor that worked dies."""
    died = []

    def on_search(actor, examples):
        if actor == 0 and len(actors.started) > 2 * MAX_FAILED_STARTS:
            died.append(actor)
            return failure(DEATH)
        return None

    actors = SimulatedActors(
        on_load=lambda actor: failure(DEATH) if actor and not died else None,
        on_search=on_search,
        seconds=lambda actor, _: 10.0,
    )
    assert search(actors, examples=200).run().complete and died


def test_actors_are_replaced_after_the_pause_of_the_policy(search):
    """Catches a pause that nothing waits for, and a preemption that others wait for."""
    actors = SimulatedActors(on_load=lambda actor: failure(PREEMPTION if actor < 3 else DEATH) if actor < 5 else None)
    search(actors, num_actors=1).run()
    waits = [later - earlier - 1.0 for earlier, later in zip(actors.started, actors.started[1:])]
    assert waits[:3] == [0.0, 0.0, 0.0] and 0.25 <= waits[3] <= 0.75 and 0.5 <= waits[4] <= 1.0


def test_what_ray_says_of_a_failed_call():
    """Catches an actor that is replaced for an exception of its own, and a preemption that is taken for a death."""
    from ray.exceptions import RayActorError, RayTaskError

    raised = failure_of(RayTaskError("search", "", ValueError("bad")))
    assert raised.kind is EXCEPTION and isinstance(raised.error, ValueError)
    assert failure_of(RayActorError(error_msg="died")).kind is DEATH
    assert failure_of(RayActorError(error_msg="died", preempted=True)).kind is PREEMPTION


def test_a_resumed_run_counts_what_is_committed_already(tmp_path, search):
    """Catches sums that begin at nothing, or that count a committed group twice."""
    folder = opened(tmp_path / "resumed")
    folder.commit(0, rows("q0") + rows("q1"), failed={"q2": "ValueError: too long"})
    committed = reopened(folder)
    progress = search(SimulatedActors(), examples=9, folder=folder, committed=committed).progress
    assert (progress.done, progress.resumed_examples, progress.failed_examples) == (2, 2, 1)
    assert (progress.baseline_correct, progress.shorter, progress.corrected) == (2, 2, 0)
    progress.add(folder.commit(1, rows("q8")))
    assert (progress.done, progress.resumed_examples, progress.shorter, len(progress.committed)) == (3, 2, 3, 2)


def test_the_pool_shrinks_with_the_queue(search):
    """Catches actors that hold a cluster's cores until the last example is done, and none left for a copy."""
    alive = []
    actors = SimulatedActors(seconds=lambda actor, examples: 100.0 if examples[0].id in ("q56", "q64") else 1.0)
    search(actors, examples=72, num_actors=9, show=lambda progress: alive.append(actors.alive)).run()
    # Nine groups for nine actors; at the end two chunks are in flight, each of which may need a copy.
    assert max(alive) == 9 and 4 in alive and actors.alive == 0


def test_a_chunk_that_takes_long_is_copied_and_the_first_result_counts(search):
    """Catches a run whose last group waits for one slow machine, and rows that are committed twice."""
    actors = SimulatedActors(seconds=lambda actor, examples: 500.0 if (actor, examples[0].id) == (0, "q0") else 1.0)
    progress = search(actors).run()
    assert [handed.actor for handed in actors.handed if handed.ids[0] == "q0"] == [0, 1]
    assert progress.complete and len(progress.committed) == 3 and actors.clock < 100.0


def test_an_elastic_pool_uses_what_joins_later(tmp_path):
    """Catches a search that keeps to the machines that were there when it began, or that exceeds a number asked for."""
    for elastic, most in ((True, 5), (False, 2)):
        folder = opened(tmp_path / str(elastic))
        actors = SimulatedActors(room=5)
        pool = dataclasses.replace(POOL, elastic=elastic)
        examples = examples_of(80)
        Coordinator(config=CONFIG, pool=pool, examples=examples, folder=folder, committed={}, actors=actors).run()
        assert len(actors.started) == most


# -- calibration ---------------------------------------------------------------------------

CALIBRATING = dataclasses.replace(CONFIG, calibration=9)


def test_the_other_groups_wait_for_the_prior(search, tmp_path):
    """Catches a group that is searched before the prior is there: its rows would depend on which actor was quick."""
    states = []
    actors = SimulatedActors(seconds=lambda actor, _: 3.0 if actor == 0 else 1.0)
    coordinator = search(
        actors, examples=40, config=CALIBRATING, num_actors=3, show=lambda p: states.append((p.done, p.calibrating))
    )
    assert coordinator.run().complete
    prior = RunFolder(tmp_path / "run").prior()
    assert prior.num_examples == 16
    assert [(handed.ids[0], handed.calibrates, handed.prior) for handed in actors.handed[:2]] == [
        ("q0", True, None),
        ("q8", True, None),
    ]
    later = {handed.ids[0]: handed for handed in actors.handed[2:]}
    assert later.keys() - {"q0"} == {"q16", "q24", "q32"}
    assert {handed.prior.fingerprint for name, handed in later.items() if name != "q0"} == {prior.fingerprint}
    assert all(calibrating == (done < 16) for done, calibrating in states)


@pytest.mark.parametrize("slow", [0, 1])
def test_the_prior_does_not_depend_on_which_actor_finished_first(search, tmp_path, slow):
    """Catches evaluations that are read in the order in which they came."""
    search(
        SimulatedActors(seconds=lambda actor, _: 3.0 if actor == slow else 1.0), examples=40, config=CALIBRATING
    ).run()
    expected = fit_prior([one for n in range(16) for one in evaluations(f"q{n}")], compare_margins=True)
    assert RunFolder(tmp_path / "run").prior().fingerprint == expected.fingerprint


def test_a_calibration_group_that_cannot_be_searched_ends_the_run(search, tmp_path):
    """Catches a prior, and so all other rows, that depend on an outage while calibration groups were searched."""
    bad = [f"q{n}" for n in range(8)]
    with pytest.raises(StoppedError, match=r"calibration group 0 .*ran out of memory.*--calibration 0"):
        search(SimulatedActors(on_search=fails_at(*bad)), examples=40, config=CALIBRATING).run()
    folder = RunFolder(tmp_path / "run")
    assert folder.prior() is None
    # The next call searches it, and the rest follows.
    folder.close()
    committed = folder.open(CALIBRATING, provenance={})
    actors = SimulatedActors()
    progress = search(actors, examples=40, config=CALIBRATING, folder=folder, committed=committed).run()
    assert progress.complete and actors.handed[0].ids[0] == "q0" and actors.handed[0].calibrates


def test_a_prior_that_an_earlier_call_has_not_fitted_is_fitted_first(search, tmp_path):
    """Catches groups that are searched without a prior because a driver died between the last commit and the fit."""
    folder = RunFolder(tmp_path / "run")
    folder.open(CALIBRATING, provenance={})
    for group, ids in enumerate([range(8), range(8, 16)]):
        found = [row for n in ids for row in rows(f"q{n}")]
        folder.commit(group, found, evaluations=[one for n in ids for one in evaluations(f"q{n}")])
    committed = reopened(folder, CALIBRATING)
    actors = SimulatedActors()
    assert search(actors, examples=40, config=CALIBRATING, folder=folder, committed=committed).run().complete
    assert all(handed.prior is not None and not handed.calibrates for handed in actors.handed)


def test_a_prior_of_another_depth_ends_the_run_with_a_sentence(search, tmp_path):
    """Catches a given prior that fails inside every actor instead."""
    folder = opened(tmp_path / "prior")
    folder.write_prior(fit_prior(evaluations("q0"), compare_margins=True))
    assert search(SimulatedActors(), folder=folder).run().complete
    deeper = SimulatedActors(on_load=lambda actor: Loaded(facts={"num_layers": 4}, node="a"))
    with pytest.raises(UserError, match="a model of 3 layers, this one has 4"):
        search(deeper, folder=folder).run()

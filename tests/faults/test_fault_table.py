"""Every fault that a search must survive, on real Ray: a test for each row of the table in docs/promise.md.

After each: the same examples as in the undisturbed run, none twice, the same rows, and the cluster's resources free.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from driver import COMMITTED, GROUP_SIZE, QUESTIONS, search
from s3_server import Fault, s3_server
from stub import WAIT_SECONDS

from pipeline.distributed import coordinator, failure_policy, work_queue
from pipeline.errors import UserError
from pipeline.shards.reader import read_manifest, read_paths
from pipeline.shards.run_folder import RunFolder
from pipeline.storage import AnyPath, StorageError, entries, is_there, lease, locate

pytestmark = pytest.mark.ray

HERE = Path(__file__).resolve().parent
CPUS = 3
LIMIT_SECONDS = 120


@pytest.fixture(scope="module")
def undisturbed(machine, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "faults").mkdir()
    assert search(folder / "run", folder / "faults", actors=1, pause=0.0).complete
    return folder / "run"


@pytest.fixture
def place(machine, tmp_path, monkeypatch):
    """A folder for a run and for what goes wrong with it; pauses are shorter than in earnest."""
    monkeypatch.setattr(failure_policy, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(failure_policy, "LONGEST_PAUSE_SECONDS", 0.2)
    (tmp_path / "faults").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3, monkeypatch) -> AnyPath:
    """A folder in a bucket; a lease expires sooner than in earnest."""
    s3.faults.clear()
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 1.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    return locate(f"{s3.bucket()}/run")


def plan(place: Path, *faults: str) -> None:
    for fault in faults:
        (place / "faults" / fault).touch()


def actors_started(place: Path) -> int:
    return len(list((place / "faults").glob("actor *")))


def assert_equal(run: AnyPath, undisturbed: Path, machine, *, but: set[str] = frozenset()) -> None:
    """A run holds what the undisturbed one does, but for examples that cannot be searched.

    A group that lacks one is another batch, and margins are rounded otherwise there, but nowhere else.
    """
    found, wanted = read_paths(run), read_paths(undisturbed)
    ids = list(dict.fromkeys(wanted.example_id))
    groups = [set(ids[start : start + GROUP_SIZE]) for start in range(0, QUESTIONS, GROUP_SIZE)]
    for group in groups:
        ours, theirs = (rows[rows.example_id.isin(group - but)].reset_index(drop=True) for rows in (found, wanted))
        pd.testing.assert_frame_equal(ours, theirs, **({"rtol": 0.01} if group & but else {"check_exact": True}))
    assert len(found) == len(wanted[~wanted.example_id.isin(but)])
    listed = [example for record in read_manifest(run).values() for example in record.example_ids]
    assert len(listed) == len(set(listed)) == QUESTIONS - len(but)
    shards = {path.name for path in entries(run / "paths")}
    assert shards == {Path(record.file).name for record in read_manifest(run).values()}
    if not but:
        assert (run / "prior.safetensors").read_bytes() == (undisturbed / "prior.safetensors").read_bytes()
        assert is_there(run / "_SUCCESS") and not is_there(run / "_staging")
    assert machine.all_free()


def example_ids(undisturbed: Path) -> list[str]:
    return list(dict.fromkeys(read_paths(undisturbed).example_id))


def driver(
    place: Path, *, run: AnyPath | None = None, actors: int = 2, step: str | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "driver.py"), str(run or place / "run"), str(place / "faults"), str(actors)]
        + ([] if step is None else [step]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and the tests may be such a thing.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in time"
        time.sleep(0.02)


def committed(run: AnyPath) -> int:
    return len(entries(run / "manifest", ".json"))


# -- actors --------------------------------------------------------------------------------


def test_an_actor_is_killed_while_it_evaluates(machine, undisturbed, place):
    """Catches a group that is lost with its actor."""
    plan(place, f"once die {example_ids(undisturbed)[9]}", f"once die {example_ids(undisturbed)[17]}")
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.actors_lost == 2 and progress.complete
    assert_equal(place / "run", undisturbed, machine)


@pytest.mark.parametrize("where", ["start", "load"])
def test_an_actor_dies_before_it_has_loaded(machine, undisturbed, place, where):
    """Catches a run that ends with the first start that fails, or that goes on with one actor fewer."""
    plan(place, f"once die {where}")
    progress = search(place / "run", place / "faults", actors=2, pause=0.1)
    assert progress.actors_lost == 1 and actors_started(place) == 2 + (where == "load")
    assert_equal(place / "run", undisturbed, machine)


def test_an_actor_is_broken(machine, undisturbed, place):
    """Catches examples that are set aside because one GPU fails at everything."""
    plan(place, f"once break {example_ids(undisturbed)[9]}")
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.complete and progress.failed_examples == 0 and progress.actors_lost == 1
    assert_equal(place / "run", undisturbed, machine)


def test_a_group_loses_three_actors_by_chance(machine, undisturbed, place):
    """Catches rows that depend on whether their group was split in search of a bad example."""
    example = example_ids(undisturbed)[13]
    plan(place, f"once die {example}", f"once2 die {example}", f"once3 die {example}")
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.complete and progress.actors_lost == 3
    assert_equal(place / "run", undisturbed, machine)


def test_an_example_crashes_its_actors(machine, undisturbed, place):
    """Catches a run that a bad example stops, and neighbours that are set aside with it."""
    bad = example_ids(undisturbed)[14]
    plan(place, f"die {bad}")
    progress = search(place / "run", place / "faults", actors=2)
    assert not progress.complete and progress.failed_examples == 1
    [line] = [line for file in (place / "run" / "failed").iterdir() for line in file.read_text().splitlines()]
    assert json.loads(line)["example_id"] == bad
    assert_equal(place / "run", undisturbed, machine, but={bad})


def test_an_example_is_beyond_its_actors(machine, undisturbed, place):
    """Catches actors that are replaced for an exception, and neighbours that are set aside with its example."""
    bad = example_ids(undisturbed)[22]
    plan(place, f"raise {bad}")
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.failed_examples == 1 and progress.actors_lost <= 1
    assert "is beyond me" in next((place / "run" / "failed").iterdir()).read_text()
    assert_equal(place / "run", undisturbed, machine, but={bad})


def test_an_example_hangs(machine, undisturbed, place, monkeypatch):
    """Catches a run that waits for ever for one example."""
    monkeypatch.setattr("pipeline.distributed.work_queue.MAX_ATTEMPTS", 1)
    bad = example_ids(undisturbed)[11]
    plan(place, f"hang {bad}")
    progress = search(place / "run", place / "faults", actors=2, stall_seconds=5.0)
    assert progress.failed_examples == 1
    assert "no program was finished for 5 seconds" in next((place / "run" / "failed").iterdir()).read_text()
    assert_equal(place / "run", undisturbed, machine, but={bad})


def test_a_grader_hangs(machine, undisturbed, place):
    """Catches an answer that hangs its grader, and so the run."""
    plan(place, f"grade {example_ids(undisturbed)[13]}")
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.actors_lost == 0
    assert_equal(place / "run", undisturbed, machine)


def test_an_actor_takes_long_at_the_end(machine, undisturbed, place, monkeypatch):
    """Catches a run that waits for its slowest actor while others are idle, and rows that come twice."""
    monkeypatch.setattr(coordinator, "OVERDUE_SECONDS", 1.0)
    plan(place, f"once wait {example_ids(undisturbed)[-1]}")
    began = time.monotonic()
    search(place / "run", place / "faults", actors=2)
    assert time.monotonic() - began < WAIT_SECONDS, "the pause of the slow actor was waited for"
    assert_equal(place / "run", undisturbed, machine)


# -- nodes ---------------------------------------------------------------------------------


def test_a_node_is_removed(machine, undisturbed, place):
    """Catches a group that is lost with its machine."""
    with machine.node() as node:
        progress = _search_and(place, 3 + 1, lambda: machine.cluster.remove_node(node, allow_graceful=False))
    assert progress.actors_lost >= 1
    assert_equal(place / "run", undisturbed, machine)


def test_a_node_is_preempted(machine, undisturbed, place, monkeypatch):
    """Catches a spot machine whose end is charged to the examples that it had."""
    from ray._raylet import GcsClient

    failed = []
    fail = work_queue.WorkQueue.fail
    monkeypatch.setattr(work_queue.WorkQueue, "fail", lambda *call: failed.append(call) or fail(*call))

    def preempt() -> None:
        deadline = int((time.time() + 60) * 1000)
        GcsClient(address=machine.cluster.address).drain_node(node.node_id, 2, "taken away", deadline)
        machine.cluster.remove_node(node, allow_graceful=False)

    with machine.node() as node:
        progress = _search_and(place, 3 + 1, preempt)
    assert progress.actors_lost >= 1 and not failed
    assert_equal(place / "run", undisturbed, machine)


def test_a_node_comes_later(machine, undisturbed, place, monkeypatch):
    """Catches a search that keeps to the machines that were there when it began."""
    monkeypatch.setattr(coordinator, "GROWTH_SECONDS", 0.5)
    with ExitStack() as nodes:
        progress = _search_and(place, None, lambda: nodes.enter_context(machine.node()), pause=0.4)
    assert actors_started(place) == CPUS + 1 and progress.actors_lost == 0
    assert_equal(place / "run", undisturbed, machine)


def test_the_model_is_not_on_one_node(machine, undisturbed, place):
    """Catches a search of many machines that ends because one of them lacks a file."""
    plan(place, "refuse load")
    with machine.node():
        progress = search(place / "run", place / "faults", actors=CPUS + 1)
    assert progress.complete and progress.actors_lost >= 1
    assert_equal(place / "run", undisturbed, machine)


def test_the_model_is_nowhere(machine, undisturbed, place):
    """Catches a search that starts actors for ever, or whose message says only that actors died."""
    plan(place, "lack load")
    with pytest.raises(UserError, match=r"^there is no such model anywhere"):
        search(place / "run", place / "faults", actors=2)
    assert machine.all_free()
    (place / "faults" / "lack load").unlink()
    search(place / "run", place / "faults", actors=2)
    assert_equal(place / "run", undisturbed, machine)


def _search_and(place: Path, actors: int | None, then: Callable[[], Any], *, pause: float = 0.2):
    """Search, and do something once every actor is at work."""
    done = []

    def look(progress) -> None:
        if progress.actors_ready >= (actors or CPUS) and not done:
            done.append(1)
            then()

    return search(place / "run", place / "faults", actors=actors, pause=pause, show=look)


# -- the driver ----------------------------------------------------------------------------


@pytest.mark.parametrize("step", COMMITTED)
def test_the_driver_is_killed_in_a_commit(machine, undisturbed, place, step):
    """Catches half a commit that counts, and a whole one that is made again."""
    process = driver(place, step=step)
    text, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == -signal.SIGKILL, text
    assert committed(place / "run") == COMMITTED[step]
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.resumed_examples == GROUP_SIZE * COMMITTED[step]
    assert_equal(place / "run", undisturbed, machine)


@pytest.mark.parametrize("step", ["staged", "moved", "recorded", "between"])
def test_the_driver_is_killed_in_a_commit_to_a_bucket(machine, undisturbed, place, bucket, step):
    """Catches half a commit that counts where nothing is renamed, and a dead driver's lease that holds for ever."""
    process = driver(place, run=bucket, step=step)
    text, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == -signal.SIGKILL, text
    assert committed(bucket) == COMMITTED[step]
    progress = search(bucket, place / "faults", actors=2)
    assert progress.resumed_examples == GROUP_SIZE * COMMITTED[step]
    assert_equal(bucket, undisturbed, machine)


def test_a_bucket_fails_now_and_then(machine, undisturbed, place, bucket, s3):
    """Catches a search of days that ends with one failed request, and rows that depend on the network."""
    s3.faults += [
        Fault(how=how, method=method, times=4) for how in ("refuse", "cut", "lose") for method in ("PUT", "GET")
    ]
    search(bucket, place / "faults", actors=2)
    assert not any(fault.times for fault in s3.faults)
    assert_equal(bucket, undisturbed, machine)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_driver_is_told_to_stop(machine, undisturbed, place, sent):
    """Catches a stop that leaves actors behind, that damages the folder, or that ends in a traceback."""
    process = driver(place)
    wait_for(lambda: committed(place / "run") >= 2, "commit")
    process.send_signal(sent)
    text, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1 and "Traceback" not in text and "run the same command again" in text
    assert machine.all_free()
    # Another number of workers goes on with it.
    progress = search(place / "run", place / "faults", actors=1)
    assert progress.resumed_examples >= GROUP_SIZE * 2
    assert_equal(place / "run", undisturbed, machine)


def test_the_disk_is_full(machine, undisturbed, place, monkeypatch):
    """Catches a commit that counts though the disk did not take it, and a run that cannot go on."""
    check, commits = RunFolder._check_written, []

    def full(table, stored) -> None:
        commits.append(table)
        if len(commits) > 4:
            raise OSError(28, "No space left on device")
        check(table, stored)

    with monkeypatch.context() as disk:
        disk.setattr(RunFolder, "_check_written", staticmethod(full))
        with pytest.raises(StorageError, match="No space left"):
            search(place / "run", place / "faults", actors=2)
    assert 0 < committed(place / "run") < QUESTIONS / GROUP_SIZE
    progress = search(place / "run", place / "faults", actors=2)
    assert progress.resumed_examples == GROUP_SIZE * 2
    assert_equal(place / "run", undisturbed, machine)


def test_another_number_of_workers_goes_on(machine, undisturbed, place):
    """Catches rows that depend on the number of actors."""
    process = driver(place, actors=1)
    wait_for(lambda: committed(place / "run") >= 3, "commit")
    process.kill()
    process.communicate(timeout=LIMIT_SECONDS)
    search(place / "run", place / "faults", actors=3)
    assert_equal(place / "run", undisturbed, machine)

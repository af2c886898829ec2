"""Runs in an S3 bucket: the same objects as on a disk, whatever the network does, and one writer at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pandas as pd
import pytest
from s3_server import Fault, S3Server, s3_server
from s3fs import S3FileSystem
from shard_rows import CONFIG, EVALUATIONS, Crash, finish, opened, reopened, rows

from pipeline import read_paths
from pipeline.cli import search as cli
from pipeline.errors import UserError
from pipeline.prior import fit_prior
from pipeline.shards import run_folder
from pipeline.shards.calibration import read_evaluations, read_prior
from pipeline.shards.reader import read_settings
from pipeline.shards.run_folder import RunFolder
from pipeline.storage import (
    RemoteWriter,
    Retries,
    StorageError,
    UnreachableError,
    entries,
    is_folder,
    is_there,
    lease,
    locate,
    retry,
)
from pipeline.tasks.rows import read_rows

#: The pauses as they are; tests have shorter ones.
PAUSES = retry.PAUSES


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


pytestmark = pytest.mark.filterwarnings("ignore:UPath 'remotedisk'")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(S3FileSystem, "retries", 1)  # our own retries are tested
    # s3fs pauses after a failure also where it does not try again.
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(0))
    monkeypatch.setattr(retry, "PAUSES", dict.fromkeys(Retries, (0.01, 0.02)))


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.05)


@pytest.fixture
def url(s3: S3Server) -> str:
    s3.faults.clear()
    return s3.bucket() + "/runs/one"


def test_a_bucket_holds_what_a_folder_holds(s3, url, tmp_path):
    """Catches a commit that depends on the store: another object, another byte, or something left over."""
    finish(opened(tmp_path / "run"))
    finish(opened(url))
    files = {
        file.relative_to(tmp_path / "run").as_posix(): file.read_bytes()
        for file in (tmp_path / "run").rglob("*")
        if file.is_file() and file.name != ".lock"
    }
    assert s3.objects(url) == files
    assert read_paths(url).equals(read_paths(tmp_path / "run"))
    assert pd.read_parquet(f"{url}/paths").example_id.tolist() == ["a", "a", "b", "b"]
    assert read_settings(url) == CONFIG.settings()


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (run_folder.pq, "write_table"),  # type: ignore[attr-defined]
        (RemoteWriter, "_put"),
        (RunFolder, "_check_written"),  # the shard is there, and its record is not
        (RunFolder, "_write_json"),
    ],
)
def test_a_crash_anywhere_in_a_commit_leaves_nothing(url, monkeypatch, owner, step):
    """Catches an object that counts before its record does, and one that stays for readers of the folder."""

    def crash(*_, **__):
        raise Crash

    run = opened(url)
    run.commit(0, rows("a"))
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(owner, step, crash)
        run.commit(1, rows("b"))
    assert set(read_paths(url).example_id) == {"a"}
    assert set(reopened(run)) == {0}
    assert pd.read_parquet(f"{url}/paths").example_id.tolist() == ["a", "a"]
    run.commit(1, rows("b"))
    assert read_paths(url).example_id.tolist() == ["a", "a", "b", "b"]
    run.close()


def sampled(cases, sample):
    """Of all cases, those that `make check` leaves out marked so."""
    return [case if case in sample else pytest.param(*case, marks=pytest.mark.exhaustive) for case in cases]


@pytest.mark.parametrize(
    ("how", "method", "name"),
    sampled(
        [
            (how, method, name)
            for how in ("refuse", "cut", "lose")
            for method, name in [("PUT", "paths/"), ("PUT", "manifest/"), ("GET", "paths/"), ("PUT", "run.json")]
        ],
        sample=[("refuse", "PUT", "paths/"), ("cut", "GET", "paths/"), ("lose", "PUT", "manifest/")],
    ),
)
def test_what_passes_is_outwaited(s3, url, tmp_path, how, method, name):
    """Catches a run that ends with the first request that fails, or that does a thing twice whose answer was lost."""
    s3.faults.append(Fault(how=how, method=method, name=name, times=2))
    finish(opened(url))
    assert s3.faults[0].times == 0
    s3.faults.clear()
    finish(opened(tmp_path / "run"))
    assert read_paths(url).equals(read_paths(tmp_path / "run"))


@pytest.mark.parametrize("name", ["paths/group-000001", "manifest/group-000001"])
def test_a_store_that_stays_away_is_one_kind_of_error(s3, url, name):
    """Catches an outage that ends in a library's traceback, or takes something with it that was committed."""
    run = opened(url)
    run.commit(0, rows("a"))
    s3.faults.append(Fault(how="refuse", name=name, times=10**6))
    with pytest.raises(StorageError, match="cannot be written"):
        run.commit(1, rows("b"))
    s3.faults.clear()
    assert set(reopened(run)) == {0}
    run.commit(1, rows("b"))
    assert read_paths(url).example_id.tolist() == ["a", "a", "b", "b"]
    run.close()


def test_a_run_under_way_waits_for_what_it_reads_as_long_as_for_what_it_writes(s3, url, monkeypatch):
    """Catches an outage that a commit would outlast, and a look at what was put does not."""
    run = opened(url)
    run.write_prior(fit_prior(EVALUATIONS, compare_margins=True))
    monkeypatch.setattr(retry, "PAUSES", {Retries.SHORT: (), Retries.LONG: (0.01, 0.02)})
    for name in ("paths/", "run.json", "prior", "calibration/"):
        s3.faults.append(Fault(how="cut", method="GET", name=name, times=2))
    s3.faults.append(Fault(how="cut", method="HEAD", name="prior", times=2))
    s3.faults.append(Fault(how="cut", method="LIST", name="failed", times=2))
    run.commit(0, rows("a"), evaluations=EVALUATIONS)
    run.describe_model({"num_layers": 3})
    assert run.prior().num_layers == 3 and run.evaluations([0]) == EVALUATIONS
    run.clear_failures({})
    assert [fault.times for fault in s3.faults] == [0] * 6
    run.close()


@pytest.mark.parametrize(
    ("method", "name", "use", "retries"),
    [
        ("HEAD", "one/run.json", lambda run: opened(str(run.root)), Retries.SHORT),
        ("GET", "one/run.json", lambda run: read_paths(run.root), Retries.SHORT),
        ("GET", "one/prior", lambda run: read_prior(run.root / "prior.safetensors"), Retries.SHORT),
        ("PUT", "two/.lock", lambda run: opened(str(run.root.parent / "two")), Retries.SHORT),
        pytest.param(
            "GET",
            "one/run.json",
            lambda run: run.describe_model({"num_layers": 3}),
            Retries.LONG,
            marks=pytest.mark.exhaustive,
        ),
        ("LIST", "one/failed", lambda run: run.clear_failures({}), Retries.LONG),
        pytest.param("HEAD", "one/prior", lambda run: run.prior(), Retries.LONG, marks=pytest.mark.exhaustive),
        pytest.param("GET", "one/prior", lambda run: run.prior(), Retries.LONG, marks=pytest.mark.exhaustive),
        ("GET", "one/calibration/", lambda run: run.evaluations([0]), Retries.LONG),
        ("PUT", "one/paths/", lambda run: run.commit(1, rows("b")), Retries.LONG),
        ("GET", "one/paths/", lambda run: run.commit(1, rows("b")), Retries.LONG),
        pytest.param(
            "PUT", "one/README.md", lambda run: run.write_card("# A run"), Retries.LONG, marks=pytest.mark.exhaustive
        ),
    ],
)
def test_a_user_is_answered_soon_and_a_run_under_way_waits(s3, url, monkeypatch, method, name, use, retries):
    """Catches a caller that asks for the other one's retries: a user who waits, or a run that stops at once."""
    run = opened(url)
    run.commit(0, rows("a"), evaluations=EVALUATIONS)
    run.write_prior(fit_prior(EVALUATIONS, compare_margins=True))
    waited: list[float] = []
    pauses = {Retries.SHORT: (1.0, 2.0), Retries.LONG: (3.0, 4.0)}
    monkeypatch.setattr(retry, "PAUSES", pauses)
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=waited.append))
    s3.faults.append(Fault(how="cut", method=method, name=name, times=10**6))
    with pytest.raises((StorageError, UserError)):
        use(run)
    assert tuple(waited) == pauses[retries]
    s3.faults.clear()
    run.close()


def test_a_run_waits_longer_than_a_user():
    """Catches pauses that are exchanged, or an outage of half a minute that stops a run."""
    assert sum(PAUSES[Retries.SHORT]) < 10 and sum(PAUSES[Retries.LONG]) > 30


@pytest.mark.parametrize(
    ("method", "name", "read"),
    [
        ("GET", "run.json", lambda run: run.describe_model({"num_layers": 3})),
        ("HEAD", "prior.safetensors", lambda run: run.prior()),
        ("GET", "calibration/", lambda run: run.evaluations([0])),
        ("LIST", "failed", lambda run: run.clear_failures({})),
    ],
)
def test_an_outage_while_a_run_reads_is_no_wrong_call(s3, url, method, name, read):
    """Catches a message that tells the user to correct the call, or to delete files that are only out of reach."""
    run = opened(url)
    run.commit(0, rows("a"), evaluations=EVALUATIONS)
    s3.faults.append(Fault(how="refuse", method=method, name=name, times=10**6))
    with pytest.raises(StorageError, match=f"{name}.* cannot be reached") as caught:
        read(run)
    assert "delete" not in str(caught.value) and not isinstance(caught.value, UserError)
    s3.faults.clear()
    run.close()


def test_ctrl_c_while_a_bucket_is_away_says_what_to_do(s3, url, monkeypatch, capsys):
    """Catches a traceback of a call that asks the store whether a run was begun."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.workflows.run_search.run_search", interrupt)
    s3.faults += [Fault(how="refuse", method=method, times=10**6) for method in ("GET", "HEAD", "LIST")]
    assert cli.run_and_show(SimpleNamespace(out=locate(url))) == 1
    assert f"stays in {url}; run the same command again to go on" in capsys.readouterr().out


def test_a_stray_object_is_removed_though_the_store_fails_at_first(s3, url):
    """Catches a removal that is tried once, after which a run cannot be taken up."""
    run = opened(url)
    run.commit(0, rows("a"))
    s3.client.put_object(Bucket=url.split("/")[2], Key="runs/one/paths/group-000007-train.parquet", Body=b"PAR1")
    s3.faults.append(Fault(how="refuse", method="DELETE", name="paths/", times=2))
    assert set(reopened(run)) == {0}
    assert not is_there(locate(url) / "paths" / "group-000007-train.parquet")
    s3.faults.append(Fault(how="refuse", method="DELETE", name="paths/", times=10**6))
    with pytest.raises(StorageError, match=r"x\.parquet cannot be removed"):
        run._store.remove("paths/x.parquet")
    run.close()


def test_an_object_that_reads_back_differently_is_not_committed(url, monkeypatch):
    """Catches a store that is believed."""
    write = run_folder.pq.write_table  # type: ignore[attr-defined]
    run = opened(url)
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="does not read back"):
        patched.setattr(run_folder.pq, "write_table", lambda table, where, **kw: write(table.slice(1), where, **kw))  # type: ignore[attr-defined]
        run.commit(0, rows("a"))
    assert read_paths(url).empty and not reopened(run)
    run.close()


# -- one writer ----------------------------------------------------------------------------


def test_two_searches_cannot_write_one_folder(url, short_lease, monkeypatch):
    """Catches two writers where a store has no locks, and a lease that its holder does not renew, or not once more."""
    # So long only where the lease is not renewed: a process that waits ends with the first renewal.
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 30.0)
    first = opened(url)
    for _ in range(2):
        with pytest.raises(UserError, match="another search is writing"):
            opened(url)
    first.commit(0, rows("a"))
    assert set(reopened(first)) == {0}
    with pytest.raises(UserError, match="another search is writing"):
        opened(url)
    first.close()
    second = opened(url)
    assert set(reopened(second)) == {0}
    second.close()


def test_a_folder_of_a_search_that_died_is_taken_over(s3, url, short_lease, monkeypatch):
    """Catches a crash after which the same command is refused for ever; and a dead search that comes back to write."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 3600.0)  # what a machine that stands still does
    first = opened(url)
    said = []
    second = RunFolder(url)
    second.open(CONFIG, provenance={}, announce=said.append)
    assert "waiting" in said[0]
    second.commit(0, rows("a"))
    first._store._lease._check_holder()  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="another search has taken over") as caught:
        first.commit(1, rows("b"))
    assert caught.value.remedy == "wait for the other's end"
    first.close()
    assert any(name == ".lock" for name in s3.objects(url)), "the lease of the second was given back by the first"
    second.close()
    assert ".lock" not in s3.objects(url)
    first.open(CONFIG, provenance={})
    first.commit(1, rows("b"))
    first.close()


def test_a_lease_whose_first_answer_was_lost_is_held(s3, url):
    """Catches a search that takes its own lease for another's."""
    s3.faults.append(Fault(how="lose", name=".lock"))
    opened(url).close()


# -- wrong paths --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://no-such-bucket/run", "bucket does not exist"),
        ("nonsense://bucket/run", "nonsense"),
        ("gs://bucket/run", "gcsfs"),
        ("s3://AKIA:secret@bucket/run", "holds a password"),
    ],
)
def test_a_wrong_path_is_named(s3, path, message):
    """Catches a traceback of a remote file system's library, and a secret in a message."""
    with pytest.raises(UserError, match=message) as caught:
        opened(path)
    assert "secret" not in str(caught.value)


def test_a_store_without_permission_is_named(s3, url):
    """Catches a traceback at the first look into a run."""
    opened(url).close()
    s3.faults.append(Fault(how="refuse", method="GET", name="run.json", times=10**6))
    with pytest.raises(UserError, match=r"run\.json cannot be"):
        read_paths(url)


@pytest.mark.parametrize("how", ["refuse", pytest.param("forbid", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    ("method", "name", "use"),
    [
        ("HEAD", "runs/one/run.json", opened),
        ("LIST", "runs/one/", opened),
        ("LIST", "runs/one/manifest/", opened),
        ("LIST", "runs/one/manifest/", read_paths),
        ("HEAD", "runs/one", lambda url: list(read_rows(url, split="train"))),
    ],
)
def test_a_store_that_does_not_answer_is_not_taken_for_an_empty_one(s3, url, how, method, name, use):
    """Catches committed rows that vanish, or are searched again, because a store says nothing when it is asked."""
    run = opened(url)
    run.commit(0, rows("a"))
    run.close()
    s3.faults.append(Fault(how=how, method=method, name=name, times=10**6))
    with pytest.raises(UserError, match=f"{name.rstrip('/')}.* cannot be re"):
        use(url)
    s3.faults.clear()
    assert set(read_paths(url).example_id) == {"a"}


def test_a_listing_that_lags_behind_is_not_believed(url, monkeypatch):
    """Catches a committed shard that is searched again because a store does not list it yet."""
    run = opened(url)
    run.commit(0, rows("a"))
    with monkeypatch.context() as patched:
        patched.setattr(
            run_folder, "entries", lambda folder, suffix="": [] if folder.name == "paths" else entries(folder)
        )
        assert set(reopened(run)) == {0}
    assert set(read_paths(url).example_id) == {"a"}
    run.close()


@pytest.mark.parametrize("name", ["run.json", "manifest/group-000000.json", "paths/group-000000-train.parquet"])
def test_an_object_that_is_empty_is_named(s3, url, name):
    """Catches a traceback where another program's upload broke off."""
    run = opened(url)
    run.commit(0, rows("a"))
    run.close()
    s3.client.put_object(Bucket=url.split("/")[2], Key=f"runs/one/{name}", Body=b"")
    with pytest.raises(UserError, match=f"{url}/{name} (cannot be read|is not what its manifest record says)"):
        read_paths(url)


def test_what_is_wrong_with_a_prior_or_a_lesson_is_said_of_its_own_name(s3, url):
    """Catches the name of a copy that is gone, and advice to delete what cannot be reached."""
    s3.client.put_object(Bucket=url.split("/")[2], Key="runs/one/prior.safetensors", Body=b"x")
    with pytest.raises(UserError, match=f"^{url}/prior.safetensors holds no prior"):
        read_prior(url)
    s3.client.put_object(Bucket=url.split("/")[2], Key="runs/one/lesson", Body=b"x")
    s3.faults.append(Fault(how="refuse", method="GET", name="lesson", times=10**6))
    with pytest.raises(UnreachableError, match="lesson cannot be reached"):
        read_evaluations(locate(f"{url}/lesson"))


def test_a_folder_made_in_a_console_is_empty(s3, url):
    """Catches an object that stands for a folder, and is taken for something in it."""
    bucket = url.split("/")[2]
    for name in ("runs/one/", "runs/one/paths/", "data/"):
        s3.client.put_object(Bucket=bucket, Key=name, Body=b"")
    assert is_folder(locate(url)) and [entry.name for entry in entries(locate(url))] == ["paths"]
    s3.client.delete_object(Bucket=bucket, Key="runs/one/paths/")
    finish(opened(url))
    assert len(read_paths(url)) == 4
    assert set(reopened(opened(f"{url}/"))) == {0, 1}
    s3.client.put_object(Bucket=bucket, Key="data/q.jsonl", Body=b'{"prompt": "1 + 1 =", "answer": "2"}')
    assert len(list(read_rows(f"s3://{bucket}/data", split="train"))) == 1


def test_a_folder_that_is_none_of_ours_is_refused(s3, url):
    """Catches a run that is written among the objects of another program."""
    s3.client.put_object(Bucket=url.split("/")[2], Key="runs/one/mine.txt", Body=b"x")
    with pytest.raises(UserError, match="is no run folder"):
        opened(url)

"""Runs in an S3 bucket: the same objects as on a disk, whatever the network does, and one writer at a time."""

from __future__ import annotations

import time

import fsspec
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3_server import Fault, S3Server, s3_server
from shard_rows import CONFIG, opened, reopened, rows

from pipeline import read_paths, shards
from pipeline.errors import UserError
from pipeline.prior import Evaluation
from pipeline.program import LayerProgram
from pipeline.shards import RunFolder, read_settings
from pipeline.storage import LocalStore, RemoteStore, StoreError, lease, locate, patience

EVALUATIONS = [Evaluation(example_id="a", program=LayerProgram((0, 2), 3), correct=True, margin=1.0)]


class Crash(BaseException):
    """What nobody handles."""


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


pytestmark = pytest.mark.filterwarnings("ignore:UPath 'fardisk'")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(patience, "READ_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(patience, "WRITE_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)


@pytest.fixture
def url(s3: S3Server) -> str:
    s3.faults.clear()
    return s3.bucket() + "/runs/one"


def finish(run: RunFolder) -> None:
    """All that a run writes."""
    run.describe_model({"num_layers": 3})
    run.commit(0, rows("a"), evaluations=EVALUATIONS, improvements={"a": [[0, 3], [2, 2]]})
    run.commit(1, rows("b"), failed={"c": "too long"})
    run.write_card("# A run")
    run.mark_complete()
    run.close()


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
        (shards.pq, "write_table"),
        (RemoteStore, "_put"),
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


@pytest.mark.parametrize("how", ["refuse", "cut", "lose"])
@pytest.mark.parametrize(
    ("method", "name"), [("PUT", "paths/"), ("PUT", "manifest/"), ("GET", "paths/"), ("PUT", "run.json")]
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
    with pytest.raises(StoreError, match="cannot be written"):
        run.commit(1, rows("b"))
    s3.faults.clear()
    assert set(reopened(run)) == {0}
    run.commit(1, rows("b"))
    assert read_paths(url).example_id.tolist() == ["a", "a", "b", "b"]
    run.close()


def test_an_object_that_reads_back_differently_is_not_committed(url, monkeypatch):
    """Catches a store that is believed."""
    write = shards.pq.write_table
    run = opened(url)
    with monkeypatch.context() as patched, pytest.raises(StoreError, match="does not read back"):
        patched.setattr(shards.pq, "write_table", lambda table, where, **kw: write(table.slice(1), where, **kw))
        run.commit(0, rows("a"))
    assert read_paths(url).empty and not reopened(run)
    run.close()


# -- one writer ----------------------------------------------------------------------------


def test_two_searches_cannot_write_one_folder(url):
    """Catches two writers where a store has no locks, and a lease that its holder does not renew."""
    first = opened(url)
    time.sleep(2 * lease.EXPIRY_SECONDS)
    with pytest.raises(UserError, match="another search is writing"):
        opened(url)
    first.commit(0, rows("a"))
    first.close()
    second = opened(url)
    assert set(reopened(second)) == {0}
    second.close()


def test_a_folder_of_a_search_that_died_is_taken_over(s3, url, monkeypatch):
    """Catches a crash after which the same command is refused for ever; and a dead search that comes back to write."""
    first = opened(url)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 3600.0)  # what a machine that stands still does
    first.close()
    first.open(CONFIG, provenance={})
    said = []
    second = RunFolder(url)
    second.open(CONFIG, provenance={}, announce=said.append)
    assert "waiting" in said[0]
    second.commit(0, rows("a"))
    first._store._lease._look()
    with pytest.raises(StoreError, match="another search has taken over"):
        first.commit(1, rows("b"))
    first.close()
    assert any(name == ".lock" for name in s3.objects(url)), "the lease of the second was given back by the first"
    second.close()
    assert ".lock" not in s3.objects(url)


def test_a_lease_whose_first_answer_was_lost_is_held(s3, url):
    """Catches a search that takes its own lease for another's."""
    s3.faults.append(Fault(how="lose", name=".lock"))
    opened(url).close()


# -- wrong places --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("s3://no-such-bucket/run", "bucket does not exist"),
        ("nonsense://bucket/run", "nonsense"),
        ("gs://bucket/run", "gcsfs"),
        ("s3://AKIA:secret@bucket/run", "holds a password"),
    ],
)
def test_a_wrong_place_is_named(s3, place, message):
    """Catches a traceback of a far file system's library, and a secret in a message."""
    with pytest.raises(UserError, match=message) as caught:
        opened(place)
    assert "secret" not in str(caught.value)


def test_a_store_that_nobody_may_read_is_named(s3, url):
    """Catches a traceback at the first look into a run."""
    opened(url).close()
    s3.faults.append(Fault(how="refuse", method="GET", name="run.json", times=10**6))
    with pytest.raises(UserError, match=r"run\.json cannot be"):
        read_paths(url)


def test_a_folder_that_is_none_of_ours_is_refused(s3, url):
    """Catches somebody's objects among which a run is written."""
    s3.client().put_object(Bucket=url.split("/")[2], Key="runs/one/mine.txt", Body=b"x")
    with pytest.raises(UserError, match="is no run folder"):
        opened(url)


# -- other file systems --------------------------------------------------------------------


class FarDisk(MemoryFileSystem):
    """A disk behind a network: it renames, and shows a file while it is written."""

    protocol = "fardisk"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012


def test_a_far_disk_gets_its_files_by_renaming(monkeypatch, tmp_path):
    """Catches a file that is read while it is written, and an unknown library's error that is not tried again."""
    fsspec.register_implementation("fardisk", FarDisk, clobber=True)
    piped, pipe = [], FarDisk.pipe_file

    def noting(self, path, *arguments, **options):
        piped.append(path)
        if len(piped) % 3 == 0:
            raise RuntimeError("an error of some library")
        return pipe(self, path, *arguments, **options)

    monkeypatch.setattr(FarDisk, "pipe_file", noting)
    finish(opened("fardisk://host/run"))
    assert all("_staging" in path or path.endswith(".lock") for path in piped)
    finish(opened(tmp_path / "run"))
    assert read_paths("fardisk://host/run").equals(read_paths(tmp_path / "run"))
    assert not locate("fardisk://host/run/_staging").exists()


def test_a_file_url_is_a_path(tmp_path):
    """Catches a folder of this machine that is taken for a far one."""
    finish(opened(f"file://{tmp_path}/run"))
    assert isinstance(opened(f"file://{tmp_path}/run")._store, LocalStore)
    assert len(read_paths(tmp_path / "run")) == 4

"""Runs on remote disks, which rename as a local one does, and show a file while it is written."""

from __future__ import annotations

import errno

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from shard_rows import CONFIG, Crash, finish, opened, reopened, rows

from pipeline import read_paths
from pipeline.errors import UserError
from pipeline.shards.reader import read_json, read_settings
from pipeline.storage import LocalWriter, Retries, entries, locate, retry

pytestmark = pytest.mark.filterwarnings("ignore:UPath 'remotedisk'")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "PAUSES", dict.fromkeys(Retries, (0.01, 0.02)))


class ShareError(OSError):
    """What a library of its own makes of an error; only the number says which."""


class RemoteDisk(MemoryFileSystem):
    """A disk behind a network: it renames, and shows a file while it is written."""

    protocol = "remotedisk"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs: list = []  # noqa: RUF012
    #: What happens to a file that is moved onto another, and what is raised where there is none.
    onto, missing = "replaces", FileNotFoundError

    def __init__(self, host):
        super().__init__()  # like sftp's, it takes no other options

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("remotedisk://host"))

    @staticmethod
    def _get_kwargs_from_urls(url):
        return {"host": "host"}

    def info(self, path, **options):
        try:
            return super().info(path, **options)
        except FileNotFoundError:
            raise self.missing(errno.ENOENT, "No such file") from None

    def _open(self, path, *arguments, **options):
        try:
            return super()._open(path, *arguments, **options)
        except FileNotFoundError:
            raise self.missing(errno.ENOENT, "No such file") from None

    def mv(self, path1, path2, **_):
        if self.exists(path2) and self.onto != "replaces":
            if self.onto == "refuses":
                raise ShareError(errno.EEXIST, "File exists")
            return
        super().mv(path1, path2)


@pytest.fixture(params=[("replaces", FileNotFoundError), ("refuses", ShareError), ("ignores", FileNotFoundError)])
def remote(request, monkeypatch):
    """The URL of a folder on a remote disk: such as sftp, SMB and WebHDFS have it."""
    fsspec.register_implementation("remotedisk", RemoteDisk, clobber=True)
    for name, value in zip(("onto", "missing", "store", "pseudo_dirs"), (*request.param, {}, [""])):
        monkeypatch.setattr(RemoteDisk, name, value)
    yield "remotedisk://host/run"
    RemoteDisk.clear_instance_cache()


def test_a_remote_disk_gets_its_files_by_renaming(remote, monkeypatch, tmp_path):
    """Catches a file that is read while it is written, an error that is not outwaited, or a move done twice."""
    piped, pipe, move = [], RemoteDisk.pipe_file, RemoteDisk.mv

    def noting(self, path, *arguments, **options):
        piped.append(path)
        if len(piped) % 3 == 0:
            raise RuntimeError("an error of some library")
        return pipe(self, path, *arguments, **options)

    def unanswered(self, *paths):
        move(self, *paths)
        raise RuntimeError("an answer that was lost")

    monkeypatch.setattr(RemoteDisk, "pipe_file", noting)
    monkeypatch.setattr(RemoteDisk, "mv", unanswered)
    finish(opened(remote))
    assert all("_staging" in path or path.endswith(".lock") for path in piped)
    finish(opened(tmp_path / "run"))
    assert read_paths(remote).equals(read_paths(tmp_path / "run"))
    assert read_json(f"{remote}/run.json")["loaded_model"] == {"num_layers": 3}, "what was written over is as it was"
    assert not locate(f"{remote}/_staging").exists()


def test_a_run_on_a_remote_disk_goes_on(remote, monkeypatch):
    """Catches a commit that counts before it is moved, a staged file that stays, and a run that is not found again."""

    def crash(*_, **__):
        raise Crash

    run = opened(remote)
    run.commit(0, rows("a"))
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(RemoteDisk, "mv", crash)
        run.commit(1, rows("b"))
    assert len(entries(run.root / "_staging")) == 1
    assert set(reopened(run)) == {0}
    assert [entry.name for entry in entries(run.root)] == [".lock", "_staging", "manifest", "paths", "run.json"]
    assert entries(run.root / "_staging") == []
    finish(run)
    assert set(reopened(run)) == {0, 1}
    run.close()
    assert read_paths(remote).example_id.tolist() == ["a", "a", "b", "b"]


def test_a_crash_before_a_file_is_moved_onto_another_loses_no_run(remote, monkeypatch):
    """Catches a folder that is refused, because its settings were out of the way when they were to be written over."""
    run = opened(remote)
    moves, move = [], RemoteDisk.mv

    def crash_later(self, *paths):
        moves.append(paths)
        if len(moves) == (1 if self.onto == "replaces" else 2):
            raise Crash
        move(self, *paths)

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(RemoteDisk, "mv", crash_later)
        run.describe_model({"num_layers": 3})
    assert reopened(run) == {}
    finish(run)
    assert read_settings(remote) == CONFIG.settings()


@pytest.mark.parametrize("step", ["makedirs", "info", "ls"])
def test_a_remote_disk_that_stays_away_is_named(remote, monkeypatch, step):
    """Catches a library's traceback, and a disk that does not answer which is taken for an empty one."""

    def fail(*_, **__):
        raise RuntimeError("an error of some library")

    opened(remote).close()
    monkeypatch.setattr(RemoteDisk, step, fail)
    with pytest.raises(UserError, match=r"/run.* cannot be reached: RuntimeError: an error of some library"):
        opened(remote)


def test_what_cannot_be_tidied_up_does_not_fail_a_run(remote, monkeypatch):
    """Catches a complete run that ends in a traceback."""

    def fail(*_, **__):
        raise RuntimeError("an error of some library")

    monkeypatch.setattr(RemoteDisk, "rmdir", fail)
    finish(opened(remote))
    assert locate(f"{remote}/_SUCCESS").exists()


def test_a_file_url_is_a_path(tmp_path):
    """Catches a folder of this machine that is taken for a remote one."""
    finish(opened(f"file://{tmp_path}/run"))
    assert isinstance(opened(f"file://{tmp_path}/run")._store, LocalWriter)
    assert len(read_paths(tmp_path / "run")) == 4

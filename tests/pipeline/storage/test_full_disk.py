"""A disk that fills while a run goes on: a sentence, exit code 1, and nothing that was committed is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from shard_rows import opened, reopened, rows

from pipeline import read_paths
from pipeline.cli import search as cli
from pipeline.errors import StoppedError
from pipeline.storage import StorageError


@pytest.mark.parametrize("write", ["commit", "write_card", "mark_complete"])
def test_a_full_disk_is_one_kind_of_error(tmp_path, monkeypatch, write):
    """Catches a full disk that ends in a traceback, or is taken for a mistake in the call."""
    run = opened(tmp_path / "run")
    run.commit(0, rows("a"))
    arguments = {"commit": (1, rows("b")), "write_card": ("text",), "mark_complete": ()}[write]

    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(StorageError, match=r"cannot be written.*No space left") as caught:
            getattr(run, write)(*arguments)
    assert caught.value.remedy == "make room"
    assert set(reopened(run)) == {0}
    assert set(read_paths(run.root).example_id) == {"a"}


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (StorageError("it is full", remedy="make room"), "make room and run the same command again to go on."),
        (StorageError("it is away"), "run the same command again to go on."),
        (StoppedError("all die"), "run the same command again to go on."),
    ],
)
def test_the_advice_fits_what_went_wrong(monkeypatch, capsys, error, advice):
    """Catches an outage that is answered with make room, and a run that stopped which is taken for a wrong call."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("pipeline.workflows.run_search.run_search", fail)
    assert cli.run_and_show(SimpleNamespace(out=Path("run"))) == 1
    assert capsys.readouterr().out == f"Stopped: {error}. What is committed stays in run; {advice}\n"


def test_a_search_that_is_stopped_before_it_began_says_so(monkeypatch, capsys, tmp_path):
    """Catches the promise of a folder that does not exist."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.workflows.run_search.run_search", interrupt)
    run = tmp_path / "run"
    assert cli.run_and_show(SimpleNamespace(out=run)) == 1
    assert capsys.readouterr().out.split() == f"Stopped before {run} was begun; nothing was written.".split()
    run.mkdir()
    (run / "run.json").write_text("{}")
    assert cli.run_and_show(SimpleNamespace(out=run)) == 1
    assert "What is committed stays in" in capsys.readouterr().out

"""A disk that fills while a run goes on: a sentence, exit code 1, and nothing that was committed is lost."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from shard_rows import opened, reopened, rows

from pipeline import read_paths
from pipeline.storage import StoreError


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
        with pytest.raises(StoreError, match=r"cannot be written.*No space left"):
            getattr(run, write)(*arguments)
    assert set(reopened(run)) == {0}
    assert set(read_paths(run.root).example_id) == {"a"}

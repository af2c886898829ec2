"""Path data sets on disk: the schema, the atomic commit, and reading back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from shard_rows import opened, reopened, rows

from pipeline import read_paths
from pipeline.shards import run_folder
from pipeline.shards.run_folder import RunFolder
from pipeline.shards.schema import COLUMNS, SCHEMA, schema_of
from pipeline.storage import LocalWriter


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run folder that holds nothing yet."""
    return opened(tmp_path / "run")


# -- what is written ----------------------------------------------------------------------


@pytest.mark.parametrize("odd", [{}, {"counts": False}, {"response": None}, {"counts": False, "response": None}])
def test_every_shard_has_exactly_the_schema(run, odd):
    """Catches a column whose type is guessed from its values, which pandas and datasets refuse to concatenate."""
    run.commit(0, rows("a", **odd))
    schema = pq.read_schema(run.root / "paths" / "group-000000.parquet")
    assert schema.equals(SCHEMA, check_metadata=True)
    assert schema.serialize().to_pybytes() == SCHEMA.serialize().to_pybytes()
    assert set(COLUMNS) == {*SCHEMA.names, *schema_of({"permutations": 4}).names}


def test_the_record_counts_what_was_committed(run):
    """Catches a summary that counts rows for questions, or takes the question's sums once a row."""
    wrong = [{**row, "baseline_correct": False} for row in rows("b")]
    record = run.commit(3, rows("a") + wrong + [{**rows("c")[1], "is_best": True}])
    assert (record.group, record.rows, record.example_ids) == (3, 5, ["a", "b", "c"])
    assert (record.baseline_correct, record.shorter, record.corrected) == (2, 1, 1)
    assert (record.evaluations, record.layer_executions) == (18, 51)
    assert record.sha256 == hashlib.sha256((run.root / record.file).read_bytes()).hexdigest()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    """Catches a time, a path or a random name inside a shard: runs could not be compared by their hashes."""
    records = [opened(tmp_path / name).commit(0, rows("a")) for name in ("one", "two")]
    assert records[0] == records[1]
    one, two = (tmp_path / name / "paths" / "group-000000.parquet" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


# -- crashes ------------------------------------------------------------------------------


def _half_a_file(self, name, content, check=None):
    (self._staging / f"{Path(name).name}-half").write_bytes(content[:9])
    raise ZeroDivisionError


def _nothing(*_, **__):
    raise ZeroDivisionError


def _after(times):
    """Moves files as many times, and then crashes."""
    replace, moved = Path.replace, []

    def crash(self, target):
        if len(moved) == times:
            raise ZeroDivisionError
        moved.append(target)
        return replace(self, target)

    return crash


@pytest.mark.parametrize(
    ("owner", "step", "crash"),
    [
        (run_folder.pq, "write_table", _nothing),
        (LocalWriter, "write", _half_a_file),
        (RunFolder, "_check_written", _nothing),
        (Path, "replace", _after(0)),
        (Path, "replace", _after(1)),
        (RunFolder, "_write_text", _nothing),
    ],
)
def test_a_crash_anywhere_in_a_commit_leaves_nothing(run, monkeypatch, owner, step, crash):
    """Catches a commit that is seen in part, or twice after the group is run again."""
    run.commit(0, rows("a"))
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(owner, step, crash)
        run.commit(1, rows("b"))
    assert set(read_paths(run.root).example_id) == {"a"}

    assert set(reopened(run)) == {0}
    assert not any((run.root / "_staging").iterdir())
    run.commit(1, rows("b"))
    for frame in (read_paths(run.root), pd.read_parquet(run.root / "paths")):
        assert frame.example_id.tolist() == ["a", "a", "b", "b"]


def test_a_shard_that_reads_back_differently_is_not_committed(run, monkeypatch):
    """Catches a disk that loses rows silently: the commit must look before it moves."""
    write = pq.write_table
    monkeypatch.setattr(run_folder.pq, "write_table", lambda table, where, **kw: write(table.slice(1), where, **kw))
    with pytest.raises(OSError, match="does not read back"):
        run.commit(0, rows("a"))
    assert read_paths(run.root).empty
    assert not any((run.root / "paths").iterdir())


@pytest.mark.parametrize("step", ["mkdir", "replace"])
def test_a_crash_while_opening_can_be_taken_up(tmp_path, monkeypatch, step):
    """Catches a folder that the same command refuses as foreign because it was stopped at its very start."""
    calls = []
    original = getattr(Path, step)

    def crash(self, *args, **kwargs):
        calls.append(self)
        if step == "replace" or len(calls) > 1:
            raise ZeroDivisionError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Path, step, crash)
        opened(tmp_path / "run")
    opened(tmp_path / "run").commit(0, rows("a"))
    assert len(read_paths(tmp_path / "run")) == 2


# -- reading back -------------------------------------------------------------------------


def test_only_committed_rows_in_the_order_of_questions(run):
    """Catches a reader that globs the folder, or gives groups in the order in which they were finished."""
    for group, example in ((10, "k"), (2, "c"), (0, "a")):
        run.commit(group, rows(example))
    (run.root / "paths" / "group-000001.parquet").write_bytes((run.root / "paths/group-000000.parquet").read_bytes())
    frame = read_paths(run.root)
    assert frame.example_id.tolist() == ["a", "a", "c", "c", "k", "k"]
    assert frame.columns.tolist() == SCHEMA.names
    assert read_paths(str(run.root)).equals(frame)


def test_nothing_committed_gives_an_empty_frame(run):
    """Catches a reader that fails on a run that has just begun."""
    frame = read_paths(run.root)
    assert frame.empty and frame.columns.tolist() == SCHEMA.names


def test_pandas_and_datasets_read_the_folder(run, tmp_path):
    """Catches shards that only our own reader can load, or a column that comes back as another type."""
    import datasets

    run.commit(0, rows("a"))
    run.commit(1, rows("b", counts=False, response=None))
    frame = pd.read_parquet(run.root / "paths")
    assert frame.example_id.tolist() == ["a", "a", "b", "b"]
    assert frame.program[0].tolist() == [0, 2] and frame.counts[3] is None
    files = str(run.root / "paths" / "*.parquet")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == SCHEMA.names
    assert loaded[2]["counts"] is None and loaded[0]["program"] == [0, 2]

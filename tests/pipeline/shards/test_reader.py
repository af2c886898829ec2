"""Path data sets on disk: the schema, the atomic commit, and reading back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_rows import CONFIG, opened, planted_row, reopened, rows

from pipeline import read_paths
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.shards import read_settings, reader, run_config, run_folder, schema
from pipeline.shards.data_card import data_set_card
from pipeline.shards.progress import Progress
from pipeline.shards.reader import read_manifest
from pipeline.shards.run_config import SCHEMA_VERSION
from pipeline.shards.run_folder import RunFolder
from pipeline.shards.schema import COLUMNS, SCHEMA, Column, schema_of
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
    schema = pq.read_schema(run.root / "paths" / "group-000000-train.parquet")
    assert schema.equals(SCHEMA, check_metadata=True)
    assert schema.serialize().to_pybytes() == SCHEMA.serialize().to_pybytes()
    assert [column.name for column in COLUMNS] == schema_of({"permutations": 4}, version=SCHEMA_VERSION).names


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
    one, two = (tmp_path / name / "paths" / "group-000000-train.parquet" for name in ("one", "two"))
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
        (run_folder.pq, "write_table", _nothing),  # type: ignore[attr-defined]
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
    monkeypatch.setattr(run_folder.pq, "write_table", lambda table, where, **kw: write(table.slice(1), where, **kw))  # type: ignore[attr-defined]
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
    (run.root / "paths" / "group-000001-train.parquet").write_bytes(
        (run.root / "paths/group-000000-train.parquet").read_bytes()
    )
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


def test_datasets_reads_a_run_folder(run, tmp_path):
    """Catches a file of a run that is taken for rows, and rows that are not found."""
    import datasets

    run.commit(0, rows("a"), evaluations=[], failed={"c": "ValueError: too long"})
    run.commit(1, rows("b"))
    (run.root / "prior.safetensors").write_bytes(b"a prior")
    run.write_card(data_set_card(CONFIG, Progress(num_examples=2, programs_an_example=6)))
    run.mark_complete()
    run.close()
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    for loaded in (
        datasets.load_dataset("parquet", data_dir=str(run.root), **options),
        datasets.load_dataset(str(run.root), **options),
    ):
        assert loaded.column_names == SCHEMA.names and loaded["example_id"][:] == ["a", "a", "b", "b"]


# -- versions -----------------------------------------------------------------------------

SECOND = SCHEMA_VERSION + 1
ADDED = {
    "note": Column(name="note", type=pa.string(), meaning="a text", nullable=True, since=1),
    "cost": Column(name="cost", type=pa.int32(), meaning="a number", default=-1, since=1),
}


def with_settings(run: RunFolder, **changes) -> Path:
    file = run.root / "run.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "settings": {**stored["settings"], **changes}}))
    return run.root  # type: ignore[return-value]


@pytest.fixture
def upgraded(monkeypatch):
    """Lets the schema have two columns more from its second version on."""

    def upgrade() -> None:
        for module in (run_config, schema, reader):
            monkeypatch.setattr(module, "SCHEMA_VERSION", SECOND)
        newer = [dataclasses.replace(column, since=SECOND) for column in ADDED.values()]
        monkeypatch.setattr(schema, "COLUMNS", (*COLUMNS[:3], newer[0], *COLUMNS[3:], newer[1]))

    return upgrade


def test_rows_of_an_older_run_have_newer_columns_at_their_defaults(run, upgraded):
    """Catches runs that nothing can read any more once a column is added, and columns in another order."""
    run.commit(0, rows("a"))
    older = read_paths(run.root)
    upgraded()
    frame = read_paths(run.root)
    assert frame.columns.tolist() == [column.name for column in schema.columns_of({}, version=SECOND)]
    assert frame.note.isna().all() and frame.cost.tolist() == [-1, -1]
    assert frame[SCHEMA.names].equals(older)


def test_a_resumed_run_keeps_its_columns_and_its_id(run, upgraded):
    """Catches shards of two schemas in one run, and a run that cannot be resumed after an upgrade."""
    run.commit(0, rows("a"))
    upgraded()
    config = dataclasses.replace(CONFIG, schema_version=run.peek()["schema_version"])
    assert set(reopened(run, config)) == {0} and config.run_id == CONFIG.run_id
    run.commit(1, [{**row, "note": "x", "cost": 3} for row in rows("b")])
    assert pq.read_schema(run.root / "paths" / "group-000001-train.parquet").equals(SCHEMA)
    assert read_paths(run.root).cost.tolist() == [-1] * 4


def test_a_new_run_has_the_newer_columns(tmp_path, upgraded):
    """Catches a column that is declared and never written, and one that every run is read to have at its default."""
    upgraded()
    folder = RunFolder(tmp_path / "new")
    folder.open(dataclasses.replace(CONFIG, schema_version=SECOND), provenance={})
    folder.commit(0, [{**row, "note": "x", "cost": 3} for row in rows("a")])
    frame = read_paths(folder.root)
    assert frame.note.tolist() == ["x", "x"] and frame.cost.tolist() == [3, 3]


def test_a_run_that_lacks_a_column_of_its_own_version_is_refused(run, upgraded):
    """Catches a default in place of what a damaged or foreign shard has lost."""
    run.commit(0, rows("a"))
    upgraded()
    with_settings(run, schema_version=SECOND)
    with pytest.raises(UserError, match="has other columns than a run with its settings"):
        read_paths(run.root)


@pytest.mark.parametrize("read", [read_paths, read_settings, lambda root: RunFolder(root).peek()])
def test_a_run_of_a_newer_version_is_refused_by_name(run, read):
    """Catches an older program that takes a newer run for damaged, or that writes into it."""
    with_settings(run, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(UserError, match=rf"is a run of schema version {SCHEMA_VERSION + 1}; .*upgrade"):
        read(run.root)


@pytest.mark.parametrize("version", [0, -1, "1", True, None, 1.0])
def test_what_is_no_version_is_refused(run, version):
    """Catches a damaged version that is taken for the first one."""
    with_settings(run, schema_version=version)
    with pytest.raises(UserError, match="holds the schema version"):
        read_settings(run.root)


def test_a_column_is_not_newer_than_the_schema():
    """Catches a column that was added while the version was forgotten: old runs would be said to lack it."""
    with pytest.raises(ValueError, match="'late' is of schema version"):
        Column(name="late", type=pa.string(), meaning="", since=SCHEMA_VERSION + 1)


def test_a_default_that_is_no_value_of_its_column_is_named(run, monkeypatch):
    """Catches an error of Arrow that names neither the column nor its type, where a run of an older version is read."""
    later = Column(name="late", type=pa.int16(), meaning="", since=1, default="none")
    monkeypatch.setattr(schema, "COLUMNS", (*schema.COLUMNS, later))
    with pytest.raises(ValueError, match=r"column 'late' must hold int16: .*'none'"):
        schema.with_newer_columns(pa.table({"example_id": ["q"]}), {})


def test_the_first_schema_version_never_changes():
    """Catches a change of what runs have on disk already: name, type, order or nullability of a column."""
    digest = hashlib.sha256(schema_of({}, version=1).serialize().to_pybytes()).hexdigest()
    both = hashlib.sha256(schema_of({"permutations": 2}, version=1).serialize().to_pybytes()).hexdigest()
    assert (digest[:16], both[:16]) == ("0cc70ff056ee13c4", "d9c6b1ab42a887ed")


def test_the_second_schema_version_never_changes():
    """Catches a further column that is given to runs of the second version, which do not have it."""
    assert [name for name in schema_of({}, version=2).names if name not in schema_of({}, version=1).names] == ["reason"]
    digest = hashlib.sha256(schema_of({}, version=2).serialize().to_pybytes()).hexdigest()
    assert digest[:16] == "9e762b0890b23950"


def test_a_record_counts_the_base_models_reasons(run):
    """Catches counts of other programs, and records of the first version that no longer can be read."""
    wrong = planted_row("b", LayerProgram.identity(3), correct=False, baseline_correct=False, rank=0, reason="cut")
    run.commit(0, [{**row, "reason": "ended"} for row in rows("a")])
    run.commit(1, [planted_row("b", LayerProgram((0, 2), 3), reason="ended"), wrong])
    run.commit(2, rows("c"))
    records = read_manifest(run.root)
    assert [records[group].base_reasons for group in range(3)] == [{"ended": 1}, {"cut": 1}, {}]
    progress = Progress(num_examples=3, programs_an_example=1)
    for record in records.values():
        progress.add(record)
    card = data_set_card(CONFIG, progress)
    assert "| the base model is wrong: cut | 1 |" in card and "ended |" not in card
    file = run.root / "manifest" / "group-000002.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in stored.items() if name != "base_reasons"}))
    assert read_manifest(run.root)[2].base_reasons == {}
    file.write_text(json.dumps({**stored, "base_reasons": {"cut": "many"}}))
    with pytest.raises(UserError, match="is damaged: its base_reasons"):
        read_manifest(run.root)

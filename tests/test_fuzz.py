"""Readers of what comes from outside: whatever it is, a value comes back or our own error, and no other exception."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_rows import opened, rows

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.shards import ShardRecord, read_manifest, read_paths, read_settings
from pipeline.tasks import TASKS, DataRequest, get_task

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
#: Bytes, and what looks like what is expected.
CONTENTS = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
LONG_NUMBER = b'{"a": ' + b"9" * 5000 + b"}"
DEEP = b"[" * 100_000
OUTSIDE = ["../x.parquet", "paths/../../x.parquet", "/x", "paths/a\0.parquet", "paths/..", "paths/a/b.parquet"]


@FUZZ
@given(text=st.text() | st.from_regex(r"[0-9,\- ]{0,30}", fullmatch=True), depth=st.integers(1, 40))
def test_programs(text, depth):
    """Catches a program's text that is read as another one, or that ends in another error than the promised one."""
    try:
        program = LayerProgram.parse(text, depth)
    except ValueError:
        return
    assert LayerProgram.parse(str(program), depth) == program
    assert all(0 <= layer < depth for layer in program)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = opened(tmp_path_factory.mktemp("run") / "run")
    folder.commit(0, rows("q0") + rows("q1"), {"q2": "too long"}, improvements={"q0": [[0, 3], [4, 2]]})
    folder.close()
    return folder.root


def survives(read, *arguments):
    try:
        return read(*arguments)
    except UserError:
        return None


@FUZZ
@given(content=CONTENTS | st.sampled_from([LONG_NUMBER, DEEP]))
def test_manifests(run, tmp_path, content):
    """Catches a damaged record whose reader dies of it."""
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    next((copy / "manifest").iterdir()).write_bytes(content)
    survives(read_manifest, copy)
    survives(read_paths, copy)


@FUZZ
@given(field=st.sampled_from(sorted(ShardRecord.__slots__)), value=JSON)
def test_fields_of_manifests(run, tmp_path, field, value):
    """Catches a field of another type that is believed, and a shard outside the run that is read."""
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    record = next((copy / "manifest").iterdir())
    record.write_text(json.dumps({**json.loads(record.read_text()), field: value}))
    found = survives(read_manifest, copy)
    survives(read_paths, copy)
    for of_group in (found or {}).values():
        assert type(of_group.group) is int and (copy / of_group.file).parent == copy / "paths"
        assert sum(map(len, of_group.example_ids)) >= 0 and of_group.rows + of_group.shorter >= 0
        assert all(len(pair) == 2 for steps in of_group.improvements.values() for pair in steps)


@FUZZ
@given(
    name=st.text(max_size=20) | st.sampled_from(["../x.parquet", "paths/../../x.parquet", "/x", "paths/a\0.parquet"])
)
def test_shards_lie_in_the_run(run, tmp_path, name):
    """Catches a manifest that makes us read, or write, another place than the run."""
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    record = next((copy / "manifest").iterdir())
    record.write_text(json.dumps({**json.loads(record.read_text()), "file": name}))
    found = survives(read_manifest, copy)
    assert found is None or (copy / found[0].file).resolve().parent == (copy / "paths").resolve()


@FUZZ
@given(content=CONTENTS | st.sampled_from([LONG_NUMBER, DEEP]))
def test_settings(run, tmp_path, content):
    """Catches a damaged run.json whose reader dies of it."""
    (tmp_path / "run.json").write_bytes(content)
    settings_found = survives(read_settings, tmp_path)
    assert settings_found is None or isinstance(settings_found, dict)


@pytest.mark.parametrize("task", sorted(name for name in TASKS if get_task(name).needs_data))
@FUZZ
@given(content=CONTENTS | st.sampled_from([LONG_NUMBER, DEEP]), data=st.data())
def test_data_lines(tmp_path, task, content, data):
    """Catches a line of data whose reader dies of it, and an example that is none."""
    file = tmp_path / "data.jsonl"
    columns = ["question", "answer", "prompt", "choices", "answerKey", "id", "text", "label", "problem", "solution"]
    row = data.draw(st.dictionaries(st.sampled_from(columns), JSON, max_size=6))
    file.write_bytes(content + b"\n" if data.draw(st.booleans()) else json.dumps(row).encode() + b"\n")
    examples = survives(get_task(task).read, DataRequest(data=str(file), split="train", limit=None, seed=0))
    for example in examples or []:
        assert all(isinstance(text, str) and text.strip() for text in (example.id, example.question, example.answer))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a" * 1_000_001, "holds 1000001 characters"),
        ("two \x07 bells", "hidden character, U\\+0007"),
        ("left \u202e tfel", "hidden character, U\\+202E"),
        ("tags \U000e0041", "hidden character, U\\+E0041"),
    ],
)
def test_hidden_and_huge_fields_are_refused(tmp_path, value, message):
    """Catches a prompt that says to the model what nobody sees, and one that fills the memory."""
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"prompt": value, "answer": "1"}) + "\n")
    with pytest.raises(UserError, match=message):
        get_task("jsonl").read(DataRequest(data=str(file), split="train", limit=None, seed=0))


def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch):
    """Catches a file of one line that is read into memory whole."""
    monkeypatch.setattr("pipeline.tasks.data.MOST_BYTES", 1 << 20)
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "' + "a" * (1 << 21))
    with pytest.raises(UserError, match="line 1: the line is longer than 1 MiB"):
        get_task("jsonl").read(DataRequest(data=str(file), split="train", limit=None, seed=0))

"""Readers of what comes from outside: whatever it is, a value comes back or our own error, and no other exception."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from shard_rows import CONFIG, opened, rows

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.report.analysis import PathStudy, analyse
from pipeline.report.summary import inspect_run
from pipeline.shards.reader import ShardRecord, read_improvements, read_manifest, read_paths, read_settings
from pipeline.shards.run_config import fingerprint
from pipeline.shards.run_folder import RunFolder
from pipeline.shards.source_examples import examples_of
from pipeline.tasks import TASKS, DataRequest, TaskOptions, get_task
from pipeline.tasks.arithmetic_kinds import FORMER_KINDS
from pipeline.tasks.rows import flaw_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    folder.commit(0, rows("q0") + rows("q1"), failed={"q2": "too long"}, improvements={"q0": [[0, 3], [4, 2]]})
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
@given(name=st.text(max_size=20) | st.sampled_from(OUTSIDE))
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


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run whose questions can be read again."""
    # Settings that name no kinds are those of a run from before there was a choice.
    former = TaskOptions(kinds=",".join(FORMER_KINDS))
    examples = get_task("arithmetic", options=former).read(DataRequest(limit=2))
    folder = RunFolder(tmp_path_factory.mktemp("searched") / "run")
    folder.open(replace(CONFIG, limit=2, data_sha256=fingerprint(examples)), provenance={"data": None})
    folder.commit(0, [row for one in examples for row in rows(one.id)], improvements={examples[0].id: [[0, 3], [4, 2]]})
    folder.close()
    return folder.root


@settings(FUZZ, max_examples=min(100, settings.default.max_examples))
@given(
    changes=st.dictionaries(
        st.sampled_from(["data", "search.budget", "permutations", *CONFIG.settings()]),
        JSON | st.sampled_from([*TASKS, "[/b]", "test", "all", 2, -1, 10**30, 10**400, math.nan]),
        max_size=2,
    )
)
def test_fields_of_settings(searched, tmp_path, changes):
    """Catches a setting of another type that ends an inspection, a report or a reading of the questions."""
    copy = tmp_path / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(searched, copy)
    notes = json.loads((copy / "run.json").read_text())
    notes["data"] = changes.pop("data", None)
    notes["settings"].update(changes)
    (copy / "run.json").write_text(json.dumps(notes))
    examples, found = survives(examples_of, copy), survives(read_paths, copy)
    if notes["data"] is None and not changes:
        assert len(examples) == 2 and len(found) == 4
    survives(inspect_run, copy, Console(file=io.StringIO()))
    if found is not None:
        survives(lambda: analyse(PathStudy.of(found, notes["settings"], read_improvements(copy))))


# -- rows of data --------------------------------------------------------------------------

CHOICES = {"text": ["ice", "sand", "iron ore", "air"], "label": ["A", "B", "C", "D"]}
#: A row of each task with all columns that it can have.
GOOD = {
    "arc": {"id": "q", "question": "Hard?", "choices": CHOICES, "answerKey": "C"},
    "arc-likelihood": {"id": "q", "question": "Hard?", "choices": CHOICES, "answerKey": "C"},
    "gsm8k": {"id": "q", "question": "How many?", "answer": "3 + 4 = 7\n#### 7"},
    "dart-math": {"id": "q", "query": "Solve.", "problem": "?", "question": "?", "gt_ans": "1/2", "answer": "0.5"},
    "jsonl": {"id": "q", "prompt": "1 + 1 =", "answer": "2", "renderings": ["One and one:", "2 =", "1 + 1 is"]},
}
READING_TASKS = sorted(name for name in TASKS if get_task(name).needs_data)
KINDS = (".jsonl", ".csv", ".parquet")
#: Texts that look like nothing, like a number, like an answer or like what no file takes.
ODD = ["", " ", "nan", "1e999", "C", "#### ,", "{0}", 'a"', "a\rb", "\0", "\u2061", "\u202e", "\U000e0041", "\ud800"]
FIELDS = JSON | st.sampled_from([*ODD, math.nan, math.inf, 10**30, CHOICES, ["A", "A"], {"text": [], "label": []}])


def places(value, path=()):
    """The ways to all that a value holds, itself first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*path, key))


def changed(value, path, change):
    """A copy in which something else stands at one place."""
    if not path:
        return change(value)
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], change)
    return copy


@st.composite
def rows_of(draw, task):
    """A good row, or one that lacks a column, or with one of its values replaced or a level deeper."""
    row = GOOD[task]
    _, *paths = places(row)
    path, other = draw(st.sampled_from(paths)), draw(FIELDS)
    changes = {
        "good": lambda: row,
        "lacking": lambda: {column: value for column, value in row.items() if column != path[0]},  # type: ignore[attr-defined]
        "replaced": lambda: changed(row, path, lambda value: other),
        "deeper": lambda: changed(row, path, lambda value: [value]),
    }
    return changes[draw(st.sampled_from(sorted(changes)))]()


def write_row(file, row):
    """Write a file of one row; False where its kind cannot say the row."""
    if file.suffix == ".jsonl":
        file.write_text(json.dumps(row) + "\n")
    elif file.suffix == ".csv":
        with file.open("w", encoding="utf-8", errors="surrogatepass", newline="") as stream:
            csv.writer(stream).writerows([row.keys(), row.values()])
    else:
        try:
            pq.write_table(pa.Table.from_pylist([row]), file)
        except (pa.ArrowException, UnicodeError, OverflowError):
            return False
    return True


def read_row(task, file, ways):
    return survives(get_task(task).read, DataRequest(data=str(file), renderings=ways))


@pytest.mark.parametrize("ways", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", READING_TASKS)
def test_good_rows_are_read(tmp_path, task, kind, ways):
    """Catches rows below that are refused before what was changed in them comes to be looked at."""
    assert write_row(tmp_path / f"data{kind}", GOOD[task])
    # A field of CSV is a text, and no list of options or of other wordings.
    nested = task.startswith("arc") or (task == "jsonl" and ways > 1)
    assert (read_row(task, tmp_path / f"data{kind}", ways) is None) == (kind == ".csv" and nested)


@pytest.mark.parametrize("task", READING_TASKS)
@FUZZ
@given(data=st.data(), kind=st.sampled_from(KINDS), ways=st.integers(1, 4))
def test_rows(tmp_path, task, data, kind, ways):
    """Catches a field of data whose reader dies of it, and an example that is none."""
    file, row = tmp_path / f"data{kind}", data.draw(rows_of(task))
    if not write_row(file, row):
        return
    examples = read_row(task, file, ways)
    assert examples or repr(row) != repr(GOOD[task]) or kind == ".csv"  # True equals 1
    for example in examples or []:
        texts = [example.id, example.question, example.answer, *example.options]
        texts += [text for way in example.renderings for text in (way.question, way.answer)]
        assert all(isinstance(text, str) and text.strip() and flaw_of(text) is None for text in texts)
        assert not example.options or example.answer in example.options
        questions = [example.question, *(way.question for way in example.renderings)]
        assert len(set(questions)) == len(questions) <= ways
        # A number that is none, and not the text of that name.
        values = [value for value in row.values() if isinstance(value, float) and not math.isfinite(value)]
        assert kind == ".csv" or not {example.id, example.answer} & set(map(str, values))


@pytest.mark.parametrize("task", READING_TASKS)
@FUZZ
@given(content=CONTENTS | st.sampled_from([LONG_NUMBER, DEEP]), kind=st.sampled_from(KINDS))
def test_lines(tmp_path, task, content, kind):
    """Catches a file of anything whose reader dies of it."""
    file = tmp_path / f"data{kind}"
    file.write_bytes(content + b"\n")
    read_row(task, file, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a" * 1_000_001, "holds 1000001 characters"),
        ("two \x07 bells", "hidden character, U\\+0007"),
        ("left \u202e tfel", "hidden character, U\\+202E"),
        ("tags \U000e0041", "hidden character, U\\+E0041"),
        ("join \u2060", "hidden character, U\\+2060"),
        ("times \u2062", "hidden character, U\\+2062"),
        ("a variant a\U000e0100", "hidden character, U\\+E0100"),
        ("two variants 葛\U000e0100\U000e0101", "hidden character, U\\+E0101"),
    ],
)
def test_hidden_and_huge_fields_are_refused(tmp_path, value, message):
    """Catches a prompt with characters that a reader does not see, and one that fills the memory."""
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"prompt": value, "answer": "1"}) + "\n")
    with pytest.raises(UserError, match=message):
        get_task("jsonl").read(DataRequest(data=str(file), split="train", limit=None, seed=0))


@pytest.mark.parametrize("text", ["a\u200bb\u200d \u200f\ufeff!", "葛\U000e0100, 𠮷\U000e0101", "e\u0301 ☺\ufe0f"])
def test_what_writing_systems_use_is_read(tmp_path, text):
    """Catches a variant of an ideograph, or what joins letters, that is taken for a hidden message."""
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"prompt": text, "answer": "1"}) + "\n")
    assert get_task("jsonl").read(DataRequest(data=str(file)))[0].question == text


def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch):
    """Catches a file of one line that is read into memory whole."""
    monkeypatch.setattr("pipeline.tasks.rows.MOST_BYTES", 1 << 20)
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "' + "a" * (1 << 21))
    with pytest.raises(UserError, match="line 1: the line is longer than 1 MiB"):
        get_task("jsonl").read(DataRequest(data=str(file), split="train", limit=None, seed=0))

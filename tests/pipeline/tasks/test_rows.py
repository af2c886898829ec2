"""Reading rows of questions: every kind of file, and every way in which one can be wrong."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.storage import locate
from pipeline.tasks import DataRequest
from pipeline.tasks.prompt_answer import PROMPT_ANSWER

ROWS = [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(3)]
GOOD = "\n".join(json.dumps(row) for row in ROWS) + "\n"


def read(data, **request):
    """The examples of users' own rows of prompt and answer."""
    return PROMPT_ANSWER.read(DataRequest(data=str(data), **request))


def fails(file, content, message, **request):
    """Write a file and expect a one-line error that matches."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as refusal:
        read(file, **request)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def good_file(request, tmp_path):
    """The same three rows in each kind of file."""
    file = tmp_path / f"data.{request.param}"
    frame = pd.DataFrame(ROWS)
    if request.param == "jsonl":
        file.write_text(GOOD.replace("\n", "\r\n\n"))  # empty lines and Windows line ends are no rows
    else:
        frame.to_csv(file, index=False) if request.param == "csv" else frame.to_parquet(file)
    return file


# -- good data ----------------------------------------------------------------------------


def test_every_kind_of_file_gives_the_same_examples(good_file):
    """Catches a reader of one format that differs from the others in order, ids or values."""
    examples = read(good_file)
    assert [example.question for example in examples] == [row["prompt"] for row in ROWS]
    assert [example.answer for example in examples] == ["1", "2", "3"]
    assert [example.id for example in examples] == ["jsonl-000000", "jsonl-000001", "jsonl-000002"]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    """Catches an order that the file system decides, or a file of another kind read as data."""
    for name, text in (("b", "2"), ("a", "1")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": text, "answer": text}))
    pd.DataFrame([{"prompt": "3", "answer": "3"}]).to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "old.jsonl").mkdir()
    assert [example.answer for example in read(tmp_path)] == ["1", "2", "3"]


def test_numbers_are_text_and_ids_are_kept(tmp_path):
    """Catches an id or a number in JSON that is dropped or refused because it is no string."""
    file = tmp_path / "d.jsonl"
    file.write_text('{"id": 7, "prompt": "x", "answer": 12}\n{"id": "b", "prompt": "x", "answer": 1.5}\n')
    assert [(e.id, e.answer) for e in read(file)] == [("7", "12"), ("b", "1.5")]


@pytest.mark.parametrize(
    ("number", "text"),
    [(42.0, "42"), (-0.0, "0"), (0.5, "0.5"), (1e6, "1000000"), (2.0**53, "9007199254740992.0"), (1e300, "1e+300")],
)
def test_a_whole_number_has_no_point(tmp_path, number, text):
    """Catches a column that pandas made floats of, since one value was missing: no answer was ever right."""
    pd.DataFrame([{"prompt": "6 * 7 =", "answer": number}, {"prompt": "x", "answer": 0.5}]).to_parquet(
        tmp_path / "d.parquet"
    )
    assert read(tmp_path / "d.parquet", limit=1)[0].answer == text


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    """Catches a spreadsheet's UTF-8 file whose first column, or first line, nothing recognises."""
    text = "prompt,answer\n1 + 1 =,2\n" if name == "d.csv" else '{"prompt": "1 + 1 =", "answer": 2}'
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read(tmp_path / name)[0].answer == "2"


def test_a_quoted_field_may_hold_commas_and_lines(tmp_path):
    """Catches a CSV reader that splits lines itself."""
    (tmp_path / "d.csv").write_text('prompt,answer\n"a, b\nc =",1\n')
    assert read(tmp_path / "d.csv")[0].question == "a, b\nc ="


def test_a_long_field_is_csv_too(tmp_path):
    """Catches the csv module's own limit of 131,072 characters, and nameless columns that are taken for one twice."""
    (tmp_path / "d.csv").write_text(f"prompt,answer,,\n{'x' * 200_000},1,,\n")
    assert len(read(tmp_path / "d.csv")[0].question) == 200_000


def test_a_limit_takes_the_first_rows_and_reads_no_further(tmp_path):
    """Catches a limit that is applied after everything, bad lines included, was read."""
    (tmp_path / "d.jsonl").write_text(GOOD + "{not json\n")
    assert len(read(tmp_path / "d.jsonl", limit=3)) == 3
    assert [example.answer for example in read(tmp_path / "d.jsonl", limit=2)] == ["1", "2"]
    with pytest.raises(UserError, match="line 4"):
        read(tmp_path / "d.jsonl", limit=4)


# -- bad data -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["none.jsonl", "./none", "none", "a/b/none.csv", "a/b/c"])
def test_missing_data_is_named_without_asking_the_hub(tmp_path, monkeypatch, data):
    """Catches a mistyped path that becomes a long wait for a hub."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{data}.*does not exist"):
        read(data)


def test_unknown_kinds_are_named(tmp_path):
    """Catches a file of another kind that is parsed as if it were one of ours."""
    fails(tmp_path / "d.xlsx", b"PK", r"unknown type.*\.jsonl, \.csv, \.parquet")
    with pytest.raises(UserError, match=r"holds no \.jsonl"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["", "\n\n"])
@pytest.mark.parametrize("name", ["d.jsonl", "d.csv"])
def test_empty_files(tmp_path, name, content):
    """Catches a run over no question that ends as a success."""
    fails(tmp_path / name, content, "no rows")


def test_csv_and_parquet_of_columns_alone(tmp_path):
    """Catches a header taken for a row, and a table without rows that ends as a success."""
    fails(tmp_path / "d.csv", "prompt,answer\n", "no rows")
    pd.DataFrame(ROWS).iloc[:0].to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UserError, match="no rows"):
        read(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 4: this is not JSON"),
        ("[" * 100_000, "line 4: this is not JSON"),
        ("[1, 2]", r"line 4: expected an object with columns, found \[1, 2\]"),
        ("null", "line 4: expected an object"),
        (b'{"prompt": "\xff", "answer": "1"}', "line 4: this is not UTF-8"),
        ('{"question": "x", "answer": "1"}', "line 4: there is no column 'prompt'; it has: question, answer"),
        ("{}", "line 4: there is no column 'prompt' and no column 'answer'; it has: no columns. --prompt-column and"),
        ('{"prompt": "x", "answer": " "}', "line 4: column 'answer' must hold text, found ' '"),
        ('{"prompt": "", "answer": "1"}', "line 4: column 'prompt' is empty"),
        ('{"prompt": "x", "answer": null}', "line 4: column 'answer' is empty"),
        ('{"prompt": "x", "answer": {"1": 1}}', "line 4: column 'answer' must hold text"),
        ('{"prompt": "x", "answer": true}', "line 4: column 'answer' must hold text, found True"),
        ('{"prompt": "x", "answer": NaN}', "line 4: column 'answer' must hold text, found nan"),
        ('{"prompt": "x", "answer": -1e999}', "line 4: column 'answer' must hold text, found -inf"),
        ('{"prompt": "x", "answer": "1", "id": ""}', "line 4: column 'id' is empty"),
        (r'{"prompt": "x", "answer": "1\n2"}', "line 4: the answer has several lines"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    """Catches a bad line that is skipped, or an error that does not say where it is."""
    content = GOOD.encode() + (line if isinstance(line, bytes) else line.encode()) + b"\n" + GOOD.encode()
    fails(tmp_path / "d.jsonl", content, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,answer\nx,1\nx\n", "line 3: .*not as many fields"),
        ("prompt,answer\nx,1,2\n", "line 2: .*not as many fields"),
        ("question,answer\nx,1\n", "line 2: there is no column 'prompt'; it has: question, answer"),
        ("prompt,answer\nx,\n", "line 2: column 'answer' is empty"),
        (b"prompt,answer\nx,1\n\xff,1\n", "line 3: this is not UTF-8"),
        ("prompt,answer\n" + "x" * 1_000_001 + ",1\n", "line 2: column 'prompt' holds 1000001 characters"),
        ("prompt,answer\rx,1\r", "line 1: this is not CSV"),
        ("prompt,answer,prompt\nx,1,y\n", "line 1: two columns are called 'prompt'"),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path, content, message):
    """Catches a csv row whose fields slip into other columns, or an error that does not say where it is."""
    fails(tmp_path / "d.csv", content, message)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"not parquet at all",
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-60] + b"\xff" * 20 + whole[-40:],
        lambda whole: whole[:4] + b"\xff" * 60 + whole[64:],
    ],
)
def test_a_broken_parquet_is_named(tmp_path, damage):
    """Catches a traceback of pyarrow, whose errors are of several unrelated kinds."""
    pd.DataFrame(ROWS).to_parquet(tmp_path / "whole.parquet")
    fails(tmp_path / "d.parquet", damage((tmp_path / "whole.parquet").read_bytes()), "not a Parquet file")


def test_a_bad_parquet_row_is_named(tmp_path):
    """Catches a null in a column that is read as the text None."""
    pd.DataFrame([*ROWS, {"prompt": "x", "answer": None}]).to_parquet(tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"d\.parquet, row 4: column 'answer' is empty"):
        read(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.array([b"\xff"]).view(pa.string()), "UnicodeDecodeError"),
        (pa.array([2**60], pa.timestamp("ms")), "OverflowError"),
        (pa.array([0], pa.timestamp("s", tz="Mars/Olympus")), "Mars/Olympus"),
    ],
)
def test_parquet_values_that_python_cannot_say(tmp_path, values, said):
    """Catches a traceback for a file that is whole: its errors are not pyarrow's."""
    file = tmp_path / "d.parquet"
    pq.write_table(pa.table({"prompt": ["x"], "answer": ["1"], "other": values}), file)
    fails(file, file.read_bytes(), f"a value cannot be read .*{said}")


def test_a_parquet_number_that_is_none(tmp_path):
    """Catches a gap in a column of numbers that becomes the reference nan."""
    pq.write_table(pa.table({"prompt": ["x", "y"], "answer": [1.5, float("nan")]}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match="row 2: column 'answer' must hold text, found nan"):
        read(tmp_path / "d.parquet")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:not-for-logs@host/d.jsonl",
        "HTTPS://not-for-logs@host/d.jsonl",
        "http://not-for-logs@host",
        "simplecache::https://user:not-for-logs@host/d.jsonl",
        "blockcache::simplecache::https://not-for-logs@host/d.jsonl",
        "zip://d.jsonl::s3://key:not-for-logs@bucket/d.zip",
        "https://user:not::for-logs@host/d.jsonl",
        "sftp://user:not-for-logs@host/d.jsonl",
        "file::https://user:not-for-logs@host/d.jsonl",
    ],
)
def test_a_secret_in_a_url_is_refused(url):
    """Catches a password behind the first part of a chain, a token for a user's name, and both in a message."""
    with pytest.raises(UserError, match="holds a password or a token") as refusal:
        read(url)
    assert "for-logs" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["s3://bucket@place/d", "https://host/a@b", "https://host?to=a@b", "sftp://user@host/d"]
)
def test_names_are_no_secrets(url):
    """Catches a bucket, a folder or a user whose name is taken for a token."""
    try:
        assert str(locate(url)).startswith(url[:8])
    except UserError as error:
        assert "requires" in str(error)


def test_one_id_in_two_places(tmp_path):
    """Catches two questions that would share one id, even across files and with a made id."""
    (tmp_path / "a.jsonl").write_text('{"id": "q", "prompt": "x", "answer": "1"}\n{"prompt": "x", "answer": "1"}')
    (tmp_path / "b.jsonl").write_text('\n{"id": "q", "prompt": "y", "answer": "1"}')
    with pytest.raises(UserError, match=r"b\.jsonl, line 2: id 'q' was already used at .*a\.jsonl, line 1;"):
        read(tmp_path)
    (tmp_path / "b.jsonl").write_text('{"id": "jsonl-000001", "prompt": "y", "answer": "1"}')
    with pytest.raises(UserError, match=r"id 'jsonl-000001' was already used at .*a\.jsonl, line 2;"):
        read(tmp_path)


def test_a_limit_below_one_is_refused():
    """Catches a limit of 0 that means all, or nothing."""
    with pytest.raises(ValueError, match="got 0"):
        DataRequest(limit=0)

"""Reading examples from rows: jsonl, csv and parquet files or folders, and data sets on the hub.

Every error names the data, the line or row in it, and what was expected there.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePath
from typing import Any, BinaryIO

from pipeline.errors import UserError
from pipeline.search.plug_in import located
from pipeline.storage import AnyPath, entries, is_folder, is_there, local_copy, locate, without_secrets
from pipeline.tasks.splits import files_of_split
from pipeline.tasks.types import DataRequest, Example, Rendering

FILE_TYPES = (".jsonl", ".csv", ".parquet")

#: Most characters of a field, and bytes of a line.
MOST_CHARACTERS, MOST_BYTES = 1_000_000, 1 << 26
#: Characters that no screen shows but a tokenizer reads: control characters except white space, characters that turn
#: the direction of writing, invisible operators, tags, and variation selectors except one behind an ideograph.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2060-\u2064\u2066-\u2069\U000e0000-\U000e007f]"
    "|(?<![\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleFields:
    """The fields of an ``Example`` that a row gives: all but its id and task."""

    question: str
    answer: str
    options: tuple[str, ...] = ()
    renderings: tuple[Rendering, ...] = ()
    also_accepted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One row of data; ``where`` names the data and the line or row in it."""

    where: str
    values: dict[str, Any]

    def text(self, *columns: str) -> str:
        """The first of the given columns that the row has, as text.

        Raises:
            UserError: The row has none of the columns, or its value is empty, or neither text nor a number.
        """
        for column in columns:
            if column in self.values:
                text = as_text(self.values[column])
                if text is None:
                    value = self.values[column]
                    flaw = "is empty" if value in ("", None) else f"must hold text, found {_short(value)}"
                    raise UserError(f"{self.where}: column {column!r} {flaw}")
                return self.checked(column, text)
        wanted = " or ".join(repr(column) for column in columns)
        raise UserError(f"{self.where}: there is no column {wanted}; it has: {', '.join(self.values) or 'no columns'}")

    def texts(self, column: str) -> list[str]:
        """A column that holds a list of texts.

        Raises:
            UserError: The row lacks the column, or it holds something else.
        """
        values = self.values.get(column)
        if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
            raise UserError(f"{self.where}: column {column!r} must hold a list of texts, found {_short(values)}")
        return [self.checked(column, value) for value in values]

    def checked(self, column: str, text: str) -> str:
        """A text of a column, unchanged.

        Raises:
            UserError: The text has a flaw; see ``flaw_of``.
        """
        flaw = flaw_of(text)
        if flaw is not None:
            raise UserError(f"{self.where}: column {column!r} holds {flaw}")
        return text


def as_text(value: Any) -> str | None:
    """A text or a number as text; None for an empty text and for any other value.

    A whole number is written without a point, also where it comes as a float: pandas turns a column of whole numbers
    into floats as soon as one of them is missing.
    """
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    # JSON and Parquet can hold NaN and infinities.
    if (isinstance(value, float) and not math.isfinite(value)) or not str(value).strip():
        return None
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return str(int(value)) if whole else str(value)


def flaw_of(text: str) -> str | None:
    """The flaw of a text, as a phrase for a message; None for a text without one.

    A text is flawed if it is too long, is not Unicode, or holds a character that no screen shows.
    """
    if len(text) > MOST_CHARACTERS:
        return f"{len(text)} characters; no text may have over {MOST_CHARACTERS}"
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON can hold half of a surrogate pair, which neither tokenizers nor files accept.
        return "a character that is no Unicode text"
    hidden = _HIDDEN.search(text)
    if hidden is None:
        return None
    return (
        f"a hidden character, U+{ord(hidden[0]):04X} at position {hidden.start()}: the model would read what no screen "
        "shows"
    )


def read_examples(request: DataRequest, *, task: str, to_example: Callable[[Row], ExampleFields]) -> list[Example]:
    """Read the requested rows and make examples of them.

    ``to_example`` raises UserError for a malformed row. An example's id is its row's ``id``, or else the task's name
    and the row's number.

    Raises:
        UserError: The data is missing, empty or malformed, two rows have one id, an answer is none of its options, or
            ``to_example`` fails.
    """
    assert request.data is not None
    examples: list[Example] = []
    seen: dict[str, str] = {}
    for number, row in enumerate(islice(read_rows(request.data, split=request.split), request.limit)):
        try:
            fields: object = to_example(row)
        except UserError:
            raise
        except Exception as error:  # the function may be a user's own, and so is whatever it raises
            raise UserError(f"{row.where}: the row cannot be made an example: {located(error)}") from error
        if not isinstance(fields, ExampleFields):
            found = type(fields).__name__
            raise UserError(f"{row.where}: the row cannot be made an example: expected ExampleFields, found {found}")
        for answer in (fields.answer, *(rendering.answer for rendering in fields.renderings)):
            if fields.options and answer not in fields.options:
                options = ", ".join(fields.options)
                raise UserError(f"{row.where}: answer {answer!r} is not one of the options: {options}")
        identifier = row.text("id") if "id" in row.values else f"{task}-{number:06d}"
        if identifier in seen:
            raise UserError(
                f"{row.where}: id {identifier!r} was already used at {seen[identifier]}; ids must be unique"
            )
        seen[identifier] = row.where
        examples.append(
            Example(
                id=identifier,
                task=task,
                question=fields.question,
                answer=fields.answer,
                options=fields.options,
                renderings=fields.renderings,
                also_accepted=fields.also_accepted,
            )
        )
    if not examples:
        raise UserError(f"{without_secrets(request.data)}: there are no rows in it")
    return examples


def read_rows(data: str, *, split: str) -> Iterator[Row]:
    """Rows of a file, of a folder's files in the order of their names, or of a hub data set.

    Args:
        data: The file, folder or data set.
        split: The split of a data set; of a folder too, where its files' names show splits (see ``files_of_split``).

    Raises:
        UserError: There is no such data, it cannot be read, or it lacks the split.
    """
    path, name = locate(data), without_secrets(data)
    # A web server lists no folders, and a request costs a download.
    if not data.startswith(("http://", "https://")) and is_folder(path):
        found = entries(path)
        files = [file for file in found if _type_of(file) in FILE_TYPES and not is_folder(file)]
        if not files:
            folders = [entry.name for entry in found if not entry.name.startswith(".") and is_folder(entry)]
            hint = f"; it holds the folders {', '.join(folders)}: give one of them" if folders else ""
            raise UserError(f"data folder {name!r} holds no {', '.join(FILE_TYPES)} file{hint}")
        for file in files_of_split(files, split, folder=name):
            yield from _read_file(file)
    elif is_there(path):
        if _type_of(path) not in FILE_TYPES:
            raise UserError(f"data file {name!r} is of an unknown type; it must end in {', '.join(FILE_TYPES)}")
        yield from _read_file(path)
    elif _type_of(path) in FILE_TYPES or data.startswith((".", "/", "~")) or data.count("/") != 1:
        raise UserError(f"data {name!r} does not exist; give a file, a folder or a hub data set (owner/name[:config])")
    else:
        yield from _read_hub(data, split)


def _type_of(file: AnyPath) -> str:
    """The ending of a file's name, without the query of a URL."""
    return PurePath(file.name.partition("?")[0]).suffix


def _read_file(file: AnyPath) -> Iterator[Row]:
    readers: dict[str, Callable[[BinaryIO, str], Iterable[tuple[str, Any]]]] = {
        ".jsonl": _read_jsonl,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    with local_copy(file) as copy, copy.open("rb") as stream:
        for where, values in readers[_type_of(file)](stream, without_secrets(file)):
            if not isinstance(values, dict):
                raise UserError(f"{where}: expected an object with columns, found {_short(values)}")
            yield Row(where, values)


def _read_jsonl(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text_lines(stream, name), start=1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: this is not JSON ({error})") from None
        yield where, values


def _read_csv(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    # A field of a million characters is valid CSV; ``flaw_of`` decides what is too long.
    csv.field_size_limit(MOST_BYTES)
    reader = csv.DictReader(_text_lines(stream, name))
    try:
        # Spreadsheets write empty columns without a name behind the others.
        columns = [column for column in reader.fieldnames or () if column]
        twice = next((column for column in columns if columns.count(column) > 1), None)
        if twice is not None:
            raise UserError(f"{name}, line 1: two columns are called {twice!r}; give one of them another name")
        for values in reader:
            if None in values or None in values.values():
                raise UserError(f"{name}, line {reader.line_num}: the row has not as many fields as the header")
            yield f"{name}, line {reader.line_num}", values
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num + 1}: this is not CSV ({error})") from None


def _read_parquet(stream: BinaryIO, name: str) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(stream).iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield f"{name}, row {number}", values
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{name}: this is not a Parquet file ({' '.join(str(error).split())})") from None
    except Exception as error:
        # Values that Python cannot represent: text that is not UTF-8, times out of range, unknown time zones.
        raise UserError(
            f"{name}: a value cannot be read ({type(error).__name__}: {' '.join(str(error).split())}); "
            "leave its column out"
        ) from None


def _text_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Lines with their ends; each line is decoded by itself, so that an error can name it."""
    for number, line in enumerate(iter(lambda: stream.readline(MOST_BYTES + 1), b""), start=1):
        if len(line) > MOST_BYTES:
            raise UserError(f"{name}, line {number}: the line is longer than {MOST_BYTES >> 20} MiB")
        try:
            # Spreadsheets begin their UTF-8 files with a byte order mark.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{name}, line {number}: this is not UTF-8 text") from None


def _read_hub(data: str, split: str) -> Iterator[Row]:
    from datasets import load_dataset

    name, _, config = data.partition(":")
    try:
        rows = load_dataset(name, config or None, split=split)
    except Exception as error:
        # The hub's client raises errors of many libraries; each means that the data cannot be read.
        raise UserError(
            f"data {data!r} (split {split!r}) cannot be read: there is no such file or folder, "
            f"and the hub answers: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'}"
        ) from None
    for number, values in enumerate(rows, start=1):
        yield Row(f"{data}, row {number}", dict(values))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_options(row: Row, answer: str, options: Sequence[str]) -> None:
    """Raise UserError unless there are two options or more, each named once, and the answer is one of them."""
    if len(options) < 2:
        raise UserError(f"{row.where}: a choice needs two options or more, found {len(options)}")
    if len(set(options)) < len(options):
        raise UserError(f"{row.where}: two options have one label: {_short(list(options))}")
    if answer not in options:
        raise UserError(f"{row.where}: the answer {answer!r} is not one of the options {list(options)!r}")

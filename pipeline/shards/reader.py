"""Reading path data sets: shards by their manifest records, checked. ``run_folder`` writes them, and has the layout."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.shards.run_config import SCHEMA_VERSION
from pipeline.shards.schema import schema_of, with_newer_columns
from pipeline.storage import AnyPath, PathOrUrl, Retries, UnreachableError, content, contents, entries, locate

if TYPE_CHECKING:
    import pandas as pd

_SHARD = re.compile(r"paths/[\w-][\w.-]*\.parquet", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """The manifest record of a committed work group.

    Attributes:
        group: Number of the work group.
        file: The shard, relative to the run folder.
        rows: Rows in it.
        example_ids: The group's examples that have rows.
        failed: Examples set aside, each with its error.
        sha256: SHA-256 of the file's bytes.
        baseline_correct: Examples that the base model gets right.
        shorter: Of those, examples with a strictly shorter right program.
        corrected: Examples that only another program gets right.
        evaluations: Programs run.
        layer_executions: Layers run.
        improvements: For each example, pairs of an evaluation's number and the new best length; the base model is
            evaluation 0. Empty if the order of the evaluations is not known.
        base_reasons: Number of the base model's answers by their reason; empty in records of schema version 1.
    """

    group: int
    file: str
    rows: int
    example_ids: list[str]
    failed: dict[str, str]
    sha256: str
    baseline_correct: int
    shorter: int
    corrected: int
    evaluations: int
    layer_executions: int
    improvements: dict[str, list[list[int]]] = field(default_factory=dict)
    base_reasons: dict[str, int] = field(default_factory=dict)


def read_settings(run: PathOrUrl) -> dict[str, Any]:
    """The settings that a run was made with.

    Raises:
        UserError: The folder is no run, holds no settings, or is a run of a newer version.
    """
    root = locate(run)
    settings = read_json(root / "run.json").get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{root / 'run.json'} holds no settings")
    check_version(settings, root)
    return settings


def check_version(settings: Mapping[str, Any], run: AnyPath) -> None:
    """Refuse a run whose columns this version of the program does not know.

    Args:
        settings: The run's settings; without a ``schema_version`` the first one is meant.
        run: The run folder, for the message.

    Raises:
        UserError: The run's schema version is newer than ``SCHEMA_VERSION``, or is not a version.
    """
    version = settings.get("schema_version", 1)
    if type(version) is not int or version < 1:
        raise UserError(f"{run / 'run.json'} holds the schema version {version!r}, which is not a number from 1 on")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{run} is a run of schema version {version}; this drllm-pipeline reads versions up to {SCHEMA_VERSION}: "
            "upgrade it (pip install --upgrade drllm-pipeline) and run the same command again"
        )


def read_json(path: PathOrUrl, *, retries: Retries = Retries.SHORT) -> dict[str, Any]:
    """A JSON object from a file of a run.

    Raises:
        UserError: The file cannot be read, or does not hold a JSON object.
        UnreachableError: The store cannot be reached.
    """
    file = locate(path)
    try:
        return _json_object(file, content(file, retries=retries))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file.parent} is no run folder: it has no {file.name}") from None
    except UnreachableError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _json_object(file: AnyPath, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode())
        if b"\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair goes to no screen and no file
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} does not hold a JSON object")
    return value


def read_manifest(run: PathOrUrl) -> dict[int, ShardRecord]:
    """The committed groups of a run, by number.

    Raises:
        UserError: A record is damaged, or names a file outside ``paths/``, or the manifest cannot be read.
    """
    records: dict[int, ShardRecord] = {}
    root = locate(run)
    try:
        files = [file for file in entries(root / "manifest", ".json") if not file.name.startswith(".")]
        for file, text in zip(files, contents(files)):
            record = _read_record(file, text)
            records[record.group] = record
    except OSError as error:
        raise UserError(f"the manifest of {root} cannot be read: {error}") from None
    return records


def _read_record(file: AnyPath, text: bytes) -> ShardRecord:
    try:
        record = ShardRecord(**_json_object(file, text))
        _check_record(record)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"manifest record {file} is damaged: {error}") from None
    return record


def _check_record(record: ShardRecord) -> None:
    """Refuse a record that is not as ``commit`` writes them: callers rely on what it says.

    Raises:
        TypeError: A field is of another type.
        ValueError: The record's shard is not a file in ``paths/``, or a number is out of its range.
    """
    for name in ("group", "rows", "baseline_correct", "shorter", "corrected", "evaluations", "layer_executions"):
        number = getattr(record, name)
        if type(number) is not int or number < 0:
            raise TypeError(f"its {name} is not a number")
    for reason in _items(record.base_reasons, dict):
        if type(record.base_reasons[reason]) is not int or record.base_reasons[reason] < 0:
            raise TypeError("its base_reasons are no numbers")
    texts = [record.file, record.sha256, *_items(record.example_ids, list), *_items(record.failed, dict)]
    texts += record.failed.values()
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name in it is no text")
    if not _SHARD.fullmatch(record.file):
        raise ValueError(f"{record.file!r} is no shard in paths/")
    for steps in (record.improvements[example] for example in _items(record.improvements, dict)):
        pairs = [_items(pair, list) for pair in _items(steps, list)]
        if not all(len(pair) == 2 and all(type(number) is int for number in pair) for pair in pairs):
            raise TypeError("its improvements are no pairs of numbers")
        if not all(number >= 0 and length >= 1 for number, length in pairs):
            raise ValueError("its improvements have numbers below 0, or lengths below 1")


def _items(value: Any, kind: type[list[Any]] | type[dict[str, Any]]) -> list[Any]:
    """The items of a list, or the keys of an object."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is of another type than it should be")
    return [*value]


def read_improvements(run: PathOrUrl) -> dict[str, list[list[int]]]:
    """For each committed example, pairs of an evaluation's number and the new best length.

    Raises:
        UserError: A record is damaged.
    """
    records = read_manifest(run).values()
    return {example: steps for record in records for example, steps in record.improvements.items()}


def read_paths(run: PathOrUrl) -> pd.DataFrame:
    """The committed rows of a run, in the order of its examples.

    Args:
        run: A run folder: a path, or a URL such as ``s3://bucket/run``.

    Returns:
        A data frame with the columns of ``pipeline.shards.schema``, those that are newer than the run at their
        defaults; empty where nothing is committed yet.

    Raises:
        UserError: The folder is no run or one of a newer version, or a committed shard is missing or damaged.
    """
    root = locate(run)
    settings = read_json(root / "run.json").get("settings")
    settings = settings if isinstance(settings, dict) else {}
    check_version(settings, root)
    schema = schema_of(settings)
    records = [record for _, record in sorted(read_manifest(root).items())]
    files = [root / record.file for record in records]
    tables: list[pa.Table] = []
    stored = contents(files)
    for file, record in zip(files, records):
        try:
            tables.append(_shard_table(file, next(stored), record, schema))
        except FileNotFoundError:
            raise UserError(f"committed shard {file} is missing; the same search makes it anew") from None
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"committed shard {file} cannot be read: {error}") from None
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    frame: pd.DataFrame = with_newer_columns(table, settings).to_pandas()
    return frame


def check_unchanged(file: AnyPath, stored: bytes, record: ShardRecord) -> None:
    """Refuse a shard whose bytes are not those that were committed.

    Raises:
        UserError: The shard was changed.
    """
    if hashlib.sha256(stored).hexdigest() != record.sha256:
        raise UserError(
            f"committed shard {file} is not what its manifest record says: it was changed after its commit; restore "
            "it, or delete it and run the same search again, which makes it anew"
        )


def _shard_table(file: AnyPath, stored: bytes, record: ShardRecord, schema: pa.Schema) -> pa.Table:
    check_unchanged(file, stored, record)
    table = pq.read_table(pa.BufferReader(stored))
    if not table.schema.equals(schema):
        raise UserError(
            f"committed shard {file} has other columns than a run with its settings; was it edited manually?"
        )
    if not _makes_sense(table):
        raise UserError(
            f"committed shard {file} holds programs of layers that the model does not have; delete it, and the same "
            "command searches its examples again"
        )
    return table


def _makes_sense(table: pa.Table) -> bool:
    """Whether all programs are of one model's layers: readers rely on it."""
    if table.num_rows == 0:
        return True
    programs = table.column("program")
    depths = pc.min_max(table.column("num_layers")).as_py()
    if depths["min"] != depths["max"] or pc.min(pc.list_value_length(programs)).as_py() == 0:
        return False
    layers = pc.list_flatten(programs)
    used = pc.min_max(layers).as_py()
    return layers.null_count == 0 and bool(0 <= used["min"] <= used["max"] < depths["max"])

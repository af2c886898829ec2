"""Path data sets on disk: the schema, the commit protocol, and reading back.

    RUN/run.json            settings, library versions, schema version
    RUN/paths/*.parquet     one row per kept program
    RUN/manifest/*.json     one record per committed shard; a shard without one does not exist
    RUN/failed/*.jsonl      examples set aside, each with its error
    RUN/calibration/, RUN/prior.safetensors   see ``pipeline.calibration``
    RUN/README.md           data set card
    RUN/_SUCCESS            last, on a complete run only

A commit writes the shard as its store can (``pipeline.storage``): under a unique name outside ``paths/``, read back,
checked and moved into place; or put whole and read back where nothing can be renamed. Then it writes the manifest
record, which is the commit. A crash before the record leaves nothing that a reader sees; the group is run again and
its file written over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import calibration
from pipeline.config import RunSettings
from pipeline.errors import UserError
from pipeline.prior import Evaluation, Prior
from pipeline.storage import (
    AnyPath,
    Place,
    StoreBusyError,
    UnreachableError,
    as_writer,
    content,
    contents,
    entries,
    is_folder,
    is_there,
    locate,
    store_of,
)

if TYPE_CHECKING:
    import pandas as pd


def _list_of(item: pa.DataType) -> pa.DataType:
    """A list whose items bear Parquet's own name, so that a file reads back with this very schema."""
    return pa.list_(pa.field("element", item))


SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("response", pa.string()),
        pa.field("program", _list_of(pa.int16()), nullable=False),
        pa.field("counts", _list_of(pa.int8())),
        pa.field("length", pa.int16(), nullable=False),
        pa.field("num_layers", pa.int16(), nullable=False),
        pa.field("saved_layers", pa.int16(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("baseline_correct", pa.bool_(), nullable=False),
        pa.field("is_best", pa.bool_(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("simulations", pa.int32(), nullable=False),
        pa.field("evaluations", pa.int32(), nullable=False),
        pa.field("layer_executions", pa.int64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)

_SHARD = re.compile(r"paths/[\w-][\w.-]*\.parquet", re.ASCII)

#: Of runs that ask each question in several ways (``--permutations``): both verdicts.
_BOTH_VERDICTS = SCHEMA.insert(
    SCHEMA.get_field_index("correct") + 1, pa.field("correct_as_asked", pa.bool_(), nullable=False)
)

#: What each column means, for the data set card.
COLUMNS = {
    "example_id": "the question; one identity row and the programs that the run keeps (`--keep`) each",
    "task": "the task's name",
    "prompt": "the exact text given to the tokenizer, chat template applied where the task has one",
    "answer": "the reference answer",
    "response": "what the program answered",
    "program": "the layers that ran, in order",
    "counts": "how often each layer ran; null where the program does not keep the layers' order",
    "length": "layers run: the program's length",
    "num_layers": "the model's depth L",
    "saved_layers": "L - length",
    "correct": "whether the program's answer is right; with `--permutations`, in every rendering of the question",
    "correct_as_asked": "only with `--permutations`: whether the answer to the question as it stands is right",
    "score": "the margin: how far the verdict is from turning, positive where right",
    "baseline_correct": "whether the untouched model is right on this question",
    "is_best": "the shortest right program within the budget, then the one of the largest margin",
    "rank": "place among the right programs within the budget, from 1; 0 for a row that is none of them",
    "simulations": "programs that the search tried on this question beside the identity",
    "evaluations": "distinct programs run on this question",
    "layer_executions": "layers that the programs tried ask for, once a row and pass, whether or not they shared one",
    "model": "the model as the run was told",
    "run_id": "names the run's settings",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One committed work group, as its manifest record says.

    Attributes:
        group: Number of the work group.
        file: The shard, relative to the run folder.
        rows: Rows in it.
        example_ids: The group's questions that have rows.
        failed: Questions set aside, each with its error.
        sha256: Of the file's bytes.
        baseline_correct: Questions that the untouched model gets right.
        shorter: Of those, questions with a strictly shorter right program.
        corrected: Questions that only another program gets right.
        evaluations: Programs run.
        layer_executions: Layers run.
        improvements: For each question, after how many programs its best one became how short; the untouched model
            is program 0. Empty where nobody knows the order in which they were tried.
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


class RunFolder:
    """The folder of one run, for its one writer."""

    def __init__(self, root: Place) -> None:
        self.root = locate(root)
        self._store = store_of(self.root)
        self._schema = SCHEMA

    # -- opening ---------------------------------------------------------------------------

    def open(
        self,
        config: RunSettings,
        *,
        provenance: dict[str, Any],
        announce: Callable[[str], None] = lambda line: None,
    ) -> dict[int, ShardRecord]:
        """Create the folder, or take up the run that it holds.

        Args:
            config: The settings of this call.
            provenance: What else ``run.json`` notes, such as library versions.
            announce: Told, in a line, why it takes long.

        Returns:
            The records of the groups that are committed already.

        Raises:
            UserError: The folder holds a run with other settings (the message names them), is none of
                ours, or is being written by another search.
        """
        self.check(lambda **_: config)
        self._schema = schema_of(config.settings())
        try:
            self._store.acquire(announce)
            return self._take_up(config, provenance)
        except StoreBusyError:
            raise UserError(f"another search is writing {self.root}; wait for its end, or stop it") from None
        except OSError as error:
            self.close()
            raise UserError(f"run folder {self.root} cannot be written: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def check(self, settle: Callable[..., RunSettings]) -> None:
        """Refuse a folder that is none of ours, or that holds a run with other settings.

        Args:
            settle: From the ``device`` and ``dtype`` of the run in the folder to this call's settings, so
                that a call can be checked before it knows the machine that it will run on.

        Raises:
            UserError: The folder is refused; the message says why.
        """
        try:
            begun = is_there(self.root / "run.json")
            taken = is_there(self.root) and (not is_folder(self.root) or any(map(self._is_foreign, entries(self.root))))
        except OSError as error:
            raise UserError(f"run folder {self.root} cannot be read: {error.strerror or error}") from None
        if begun:
            stored = read_settings(self.root)
            self._check_settings(stored, settle(device=str(stored.get("device")), dtype=str(stored.get("dtype"))))
        elif taken:
            raise UserError(f"{self.root} exists and is no run folder (it has no run.json); give a new folder to --out")

    def _take_up(self, config: RunSettings, provenance: dict[str, Any]) -> dict[int, ShardRecord]:
        """Make what a run folder has, drop what a crash left, and read what is committed."""
        # First of all: a folder without it is not taken for ours the next time.
        if not is_there(self.root / "run.json"):
            self._write_json(
                "run.json", {"run_id": config.run_id, "settings": config.settings(), **provenance}, indent=2
            )
        # Once the prior is there, nobody needs to know any more what it was learnt from.
        taught = is_there(self.root / calibration.PRIOR_FILE)
        teaching = range(0) if taught else calibration.calibration_groups(config.calibration, config.group_size)
        shards = entries(self.root / "paths", ".parquet")
        present = {f"paths/{shard.name}" for shard in shards}
        records = read_manifest(self.root)
        committed = {
            group: record
            for group, record in records.items()
            # A listing may lag behind.
            if (record.file in present or is_there(self.root / record.file))
            and (group not in teaching or is_there(self.root / self._lesson(group)))
        }
        if is_there(self.root / "_SUCCESS"):
            self._store.remove("_SUCCESS")  # a complete run says so again
        # Somebody who deleted a shard, or a lesson, wants its group searched again. First its record: who reads takes
        # a record without a shard for damage, and a shard without a record for nothing.
        for group in records.keys() - committed.keys():
            self._store.remove(f"manifest/{_name_of(group)}.json")
        # Whoever goes on says at the end that the run is complete, and a shard that was changed is none of it.
        kept = [(self.root / record.file, record) for record in committed.values()]
        for (file, record), stored in zip(kept, contents([file for file, _ in kept])):
            _check_unchanged(file, stored, record)
        # A crash leaves a shard that was never recorded.
        listed = {record.file for record in committed.values()}
        for shard in shards:
            if shard.name.startswith("group-") and f"paths/{shard.name}" not in listed:
                self._store.remove(f"paths/{shard.name}")
        return committed

    def _is_foreign(self, entry: AnyPath) -> bool:
        """False for what a crash while ``run.json`` is written leaves."""
        return not entry.name.startswith(self._store.own_names)

    def close(self) -> None:
        """Let another search write the folder."""
        self._store.release()

    @as_writer()
    def describe_model(self, facts: dict[str, Any]) -> None:
        """Add to ``run.json`` what only a loaded model tells, once.

        Raises:
            StoreError: The store does not take it, or cannot be reached.
        """
        stored = read_json(self.root / "run.json")
        if "loaded_model" not in stored:
            self._write_json("run.json", {**stored, "loaded_model": facts}, indent=2)

    @staticmethod
    def _check_settings(before: dict[str, Any], config: RunSettings) -> None:
        now = config.settings()
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if differing:
            # Other questions follow from other settings; their hash says nothing more.
            differing = [key for key in differing if key != "data_sha256"] or differing
            lines = "".join(f"\n  {key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in differing)
            raise UserError(
                f"the run folder was made with other settings:{lines}\n"
                "give the same settings to go on with it, or another folder to --out"
            )

    # -- committing ------------------------------------------------------------------------

    def commit(
        self,
        group: int,
        rows: Sequence[dict[str, Any]],
        failed: dict[str, str] | None = None,
        evaluations: Sequence[Evaluation] | None = None,
        improvements: dict[str, list[list[int]]] | None = None,
    ) -> ShardRecord:
        """Write one work group's rows and make them part of the run.

        Args:
            group: Number of the work group.
            rows: Its rows.
            failed: Its questions that cannot be searched, each with its error.
            evaluations: All that its searches tried, where others are to learn from it.
            improvements: As the record has them.

        Raises:
            StoreError: The store does not take them; nothing is committed then.
        """
        if evaluations is not None:
            self._write_table(self._lesson(group), calibration.to_table(evaluations))
        return self._commit(group, rows, failed or {}, improvements or {})

    def _commit(
        self,
        group: int,
        rows: Sequence[dict[str, Any]],
        failed: dict[str, str],
        improvements: dict[str, list[list[int]]],
    ) -> ShardRecord:
        name = _name_of(group)
        shard = f"paths/{name}.parquet"
        digest = self._write_table(shard, pa.Table.from_pylist(list(rows), schema=self._schema))

        best = [row for row in rows if row["is_best"]]
        first = {row["example_id"]: row for row in rows}
        record = ShardRecord(
            group=group,
            file=shard,
            rows=len(rows),
            example_ids=list(first),
            failed=failed,
            sha256=digest,
            baseline_correct=sum(row["baseline_correct"] for row in first.values()),
            shorter=sum(row["baseline_correct"] and row["saved_layers"] > 0 for row in best),
            corrected=sum(not row["baseline_correct"] for row in best),
            evaluations=sum(row["evaluations"] for row in first.values()),
            layer_executions=sum(row["layer_executions"] for row in first.values()),
            improvements=improvements,
        )
        if failed:
            self.set_aside(group, failed)
        fields = {name: getattr(record, name) for name in ShardRecord.__slots__}
        self._write_json(f"manifest/{name}.json", fields, indent=1)
        return record

    def set_aside(self, group: int, failed: dict[str, str]) -> None:
        """Note examples that could not be searched, each with its error."""
        lines = (json.dumps({"example_id": example_id, "error": error}) for example_id, error in failed.items())
        self._write_text(f"failed/{_name_of(group)}.jsonl", "\n".join(lines) + "\n")

    @as_writer()
    def clear_failures(self, committed: dict[int, ShardRecord]) -> None:
        """Forget groups that an earlier call gave up: they are tried again.

        Raises:
            StoreError: A note of them stays, or the store cannot be reached.
        """
        for file in entries(self.root / "failed", ".jsonl"):
            number = file.stem.removeprefix("group-")
            if number.isdecimal() and int(number) not in committed:
                self._store.remove(f"failed/{file.name}")

    def write_card(self, text: str) -> None:
        """Write the data set card."""
        self._write_text("README.md", text)

    def mark_complete(self) -> None:
        """Say that every example is committed. The last thing that a complete run writes."""
        self._write_text("_SUCCESS", "")
        self._store.tidy()

    def _write_table(self, name: str, table: pa.Table) -> str:
        """Write a table as Parquet; returns the file's SHA-256."""
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        written = buffer.getvalue().to_pybytes()
        self._store.write(name, written, check=partial(self._check_written, table))
        return hashlib.sha256(written).hexdigest()

    @staticmethod
    def _check_written(table: pa.Table, stored: bytes) -> None:
        try:
            reread = pq.read_table(pa.BufferReader(stored))
        except pa.ArrowException as error:
            raise OSError(f"it reads back as no table: {error}") from error
        if not reread.schema.equals(table.schema) or not _comparable(reread).equals(_comparable(table)):
            raise OSError("it does not read back as it was written")

    # -- what other questions learn from -----------------------------------------------------

    @as_writer()
    def evaluations(self, groups: Iterable[int]) -> list[Evaluation]:
        """All that the searches of calibration groups tried, in the order of the groups.

        Raises:
            UserError: A file is damaged.
            StoreError: The store cannot be reached.
        """
        files = [self.root / self._lesson(group) for group in sorted(groups)]
        return [evaluation for file in files for evaluation in calibration.read_evaluations(file)]

    @as_writer()
    def prior(self) -> Prior | None:
        """The prior that the run goes by, once it is there.

        Raises:
            UserError: Its file is damaged.
            StoreError: The store cannot be reached.
        """
        file = self.root / calibration.PRIOR_FILE
        return calibration.read_prior(file) if is_there(file) else None

    def write_prior(self, prior: Prior) -> None:
        """Keep the prior that the run goes by from now on.

        Raises:
            StoreError: The store does not take it.
        """
        self._store.write(calibration.PRIOR_FILE, prior.to_bytes())

    @staticmethod
    def _lesson(group: int) -> str:
        return f"{calibration.FOLDER}/{_name_of(group)}.parquet"

    def _write_json(self, name: str, value: dict[str, Any], *, indent: int) -> None:
        self._write_text(name, json.dumps(value, indent=indent) + "\n")

    def _write_text(self, name: str, text: str) -> None:
        self._store.write(name, text.encode())


def _name_of(group: int) -> str:
    """How a group's files are called."""
    return f"group-{group:06d}"


def _comparable(table: pa.Table) -> pa.Table:
    """A table whose floats equal themselves: what is not a number is null in it."""
    for place, column_field in enumerate(table.schema):
        if pa.types.is_floating(column_field.type):
            column = pc.if_else(pc.is_nan(table.column(place)), pa.scalar(None, column_field.type), table.column(place))
            table = table.set_column(place, pa.field(column_field.name, column_field.type), column)
    return table


# -- reading back --------------------------------------------------------------------------


def schema_of(settings: dict[str, Any]) -> pa.Schema:
    """The columns of a run with those settings."""
    return SCHEMA if settings.get("permutations", 1) == 1 else _BOTH_VERDICTS


def read_settings(run: Place) -> dict[str, Any]:
    """The settings that a run was made with.

    Raises:
        UserError: The folder is no run, or holds no settings.
    """
    root = locate(run)
    settings = read_json(root / "run.json").get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{root / 'run.json'} holds no settings")
    return settings


def read_json(place: Place) -> dict[str, Any]:
    """A JSON object from a file of a run.

    Raises:
        UserError: It cannot be read, or is no JSON object.
        UnreachableError: It cannot be reached.
    """
    file = locate(place)
    try:
        return _json_object(file, content(file))
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


def read_manifest(run: Place) -> dict[int, ShardRecord]:
    """The committed groups of a run, by number.

    Raises:
        UserError: A record is damaged, or names a file outside ``paths/``.
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
    """Refuse a record that is not as ``commit`` writes them: what it says is acted upon.

    Raises:
        TypeError: A field is of another type.
        ValueError: Its shard is none in ``paths/``, or a number is out of its range.
    """
    for name in ("group", "rows", "baseline_correct", "shorter", "corrected", "evaluations", "layer_executions"):
        number = getattr(record, name)
        if type(number) is not int or number < 0:
            raise TypeError(f"its {name} is no number")
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
    """What is in a list, or the keys of an object."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is of another type than it should be")
    return [*value]


def read_improvements(run: Place) -> dict[str, list[list[int]]]:
    """For each committed question, after how many programs its best one became how short.

    Raises:
        UserError: A record is damaged.
    """
    records = read_manifest(run).values()
    return {example: steps for record in records for example, steps in record.improvements.items()}


def read_paths(run: Place) -> pd.DataFrame:
    """The committed rows of a run, in the order of its questions.

    Args:
        run: A run folder: a path, or a URL such as ``s3://bucket/run``.

    Returns:
        A data frame with the columns of ``schema_of`` its settings; empty where nothing is committed yet.

    Raises:
        UserError: The folder is no run, or a committed shard is missing or damaged.
    """
    root = locate(run)
    settings = read_json(root / "run.json").get("settings")
    schema = schema_of(settings if isinstance(settings, dict) else {})
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
    frame: pd.DataFrame = (pa.concat_tables(tables) if tables else schema.empty_table()).to_pandas()
    return frame


def _check_unchanged(file: AnyPath, stored: bytes, record: ShardRecord) -> None:
    """Refuse a shard that is not the one that was committed.

    Raises:
        UserError: It was changed since.
    """
    if hashlib.sha256(stored).hexdigest() != record.sha256:
        raise UserError(
            f"committed shard {file} is not what its manifest record says: it was changed after its commit; restore "
            "it, or delete it and run the same search again, which makes it anew"
        )


def _shard_table(file: AnyPath, stored: bytes, record: ShardRecord, schema: pa.Schema) -> pa.Table:
    _check_unchanged(file, stored, record)
    table = pq.read_table(pa.BufferReader(stored))
    if not table.schema.equals(schema):
        raise UserError(f"committed shard {file} has other columns than a run with its settings; was it made by hand?")
    if not _makes_sense(table):
        raise UserError(
            f"committed shard {file} holds programs of layers that the model has not; delete it, and the same command "
            "searches its questions again"
        )
    return table


def _makes_sense(table: pa.Table) -> bool:
    """Whether all programs are of one model's layers: what reads them counts on it."""
    if table.num_rows == 0:
        return True
    programs = table.column("program")
    depths = pc.min_max(table.column("num_layers")).as_py()
    if depths["min"] != depths["max"] or pc.min(pc.list_value_length(programs)).as_py() == 0:
        return False
    layers = pc.list_flatten(programs)
    used = pc.min_max(layers).as_py()
    return layers.null_count == 0 and bool(0 <= used["min"] <= used["max"] < depths["max"])

"""Path data sets on disk: the schema, the commit protocol, and reading back.

    RUN/run.json            settings, library versions, schema version
    RUN/paths/*.parquet     one row per kept program
    RUN/manifest/*.json     one record per committed shard; a shard without one does not exist
    RUN/failed/*.jsonl      examples set aside, each with its error
    RUN/calibration/, RUN/prior.safetensors   see ``pipeline.calibration``
    RUN/README.md           data set card
    RUN/_SUCCESS            last, on a complete run only

A commit writes under a unique name outside ``paths/``, closes, reopens and checks, moves into place
and then writes the manifest record, which is the commit. A crash before the record leaves nothing
that a reader sees; the group is run again and its file written over.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from pipeline import calibration
from pipeline.config import RunSettings
from pipeline.errors import UserError
from pipeline.prior import Evaluation, Prior

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

_LOCK_NAME = ".lock"
_SHARD = re.compile(r"paths/[\w-][\w.-]*\.parquet", re.ASCII)

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
    "correct": "whether the program's answer is right",
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


class RunFolderError(OSError):
    """The disk does not take a commit. What was committed before stays."""


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

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()
        self._staging = self.root / "_staging"
        self._lock = FileLock(self.root / _LOCK_NAME, timeout=0)

    # -- opening ---------------------------------------------------------------------------

    def open(self, config: RunSettings, *, provenance: dict[str, Any]) -> dict[int, ShardRecord]:
        """Create the folder, or take up the run that it holds.

        Args:
            config: The settings of this call.
            provenance: What else ``run.json`` notes, such as library versions.

        Returns:
            The records of the groups that are committed already.

        Raises:
            UserError: The folder holds a run with other settings (the message names them), is none of
                ours, or is being written by another search.
        """
        self.check(lambda **_: config)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            return self._take_up(config, provenance)
        except Timeout:
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
        if (self.root / "run.json").exists():
            stored = read_settings(self.root)
            self._check_settings(stored, settle(device=str(stored.get("device")), dtype=str(stored.get("dtype"))))
        elif self.root.exists() and (not self.root.is_dir() or any(map(self._is_foreign, self.root.iterdir()))):
            raise UserError(f"{self.root} exists and is no run folder (it has no run.json); give a new folder to --out")

    def _take_up(self, config: RunSettings, provenance: dict[str, Any]) -> dict[int, ShardRecord]:
        """Make what a run folder has, drop what a crash left, and read what is committed."""
        settings_file = self.root / "run.json"
        # First of all: a folder without it is not taken for ours the next time.
        if not settings_file.exists():
            self._write_text(
                settings_file,
                json.dumps({"run_id": config.run_id, "settings": config.settings(), **provenance}, indent=2) + "\n",
            )
        for folder in (self._staging, self.root / "paths", self.root / "manifest"):
            folder.mkdir(exist_ok=True)
        # Once the prior is there, nobody needs to know any more what it was learnt from.
        taught = (self.root / calibration.PRIOR_FILE).exists()
        teaching = range(0) if taught else calibration.calibration_groups(config.calibration, config.group_size)
        committed = {
            group: record
            for group, record in read_manifest(self.root).items()
            if (self.root / record.file).is_file() and (group not in teaching or self._lesson(group).is_file())
        }
        # A crash leaves staged files, and a shard that was moved but never recorded; somebody who
        # deleted a shard wants its group searched again.
        listed = {self.root / record.file for record in committed.values()}
        for leftover in {*self._staging.iterdir(), *(self.root / "paths").glob("group-*.parquet")} - listed:
            leftover.unlink()
        (self.root / "_SUCCESS").unlink(missing_ok=True)  # a complete run says so again
        return committed

    @staticmethod
    def _is_foreign(entry: Path) -> bool:
        """False for what a crash while ``run.json`` is written leaves."""
        return not entry.name.startswith((".run.json-", _LOCK_NAME))

    def close(self) -> None:
        """Let another search write the folder."""
        self._lock.release()

    def describe_model(self, facts: dict[str, Any]) -> None:
        """Add to ``run.json`` what only a loaded model tells, once."""
        settings_file = self.root / "run.json"
        stored = read_json(settings_file)
        if "loaded_model" not in stored:
            self._write_text(settings_file, json.dumps({**stored, "loaded_model": facts}, indent=2) + "\n")

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
            RunFolderError: The disk does not take them; nothing is committed then.
        """
        try:
            if evaluations is not None:
                self._stage(calibration.to_table(evaluations), self._lesson(group))
            return self._commit(group, rows, failed or {}, improvements or {})
        except RunFolderError:
            raise
        except OSError as error:
            raise RunFolderError(f"run folder {self.root} cannot be written: {error}") from error

    def _commit(
        self,
        group: int,
        rows: Sequence[dict[str, Any]],
        failed: dict[str, str],
        improvements: dict[str, list[list[int]]],
    ) -> ShardRecord:
        name = f"group-{group:06d}"
        shard = self.root / "paths" / f"{name}.parquet"
        digest = self._stage(pa.Table.from_pylist(list(rows), schema=SCHEMA), shard)

        best = [row for row in rows if row["is_best"]]
        first = {row["example_id"]: row for row in rows}
        record = ShardRecord(
            group=group,
            file=shard.relative_to(self.root).as_posix(),
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
        self._write_text(self.root / "manifest" / f"{name}.json", json.dumps(fields, indent=1) + "\n")
        return record

    def set_aside(self, group: int, failed: dict[str, str]) -> None:
        """Note examples that could not be searched, each with its error."""
        lines = (json.dumps({"example_id": example_id, "error": error}) for example_id, error in failed.items())
        (self.root / "failed").mkdir(exist_ok=True)
        self._write_text(self.root / "failed" / f"group-{group:06d}.jsonl", "\n".join(lines) + "\n")

    def clear_failures(self, committed: dict[int, ShardRecord]) -> None:
        """Forget groups that an earlier call gave up: they are tried again."""
        for file in (self.root / "failed").glob("group-*.jsonl"):
            if int(file.stem.removeprefix("group-")) not in committed:
                file.unlink()

    def write_card(self, text: str) -> None:
        """Write the data set card."""
        self._write_text(self.root / "README.md", text)

    def mark_complete(self) -> None:
        """Say that every example is committed. The last thing that a complete run writes."""
        self._staging.rmdir()
        self._write_text(self.root / "_SUCCESS", "")

    def _stage(self, table: pa.Table, target: Path) -> str:
        """Write a table under another name, check it and move it into place; returns the file's SHA-256."""
        staged = self._staging / f"{target.stem}-{uuid.uuid4().hex}.parquet"
        pq.write_table(table, staged, compression="zstd")
        self._check_written(staged, table)
        with staged.open("rb+") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        target.parent.mkdir(exist_ok=True)
        staged.replace(target)
        return digest

    @staticmethod
    def _check_written(file: Path, table: pa.Table) -> None:
        reread = pq.read_table(file)
        if not reread.schema.equals(table.schema) or not _comparable(reread).equals(_comparable(table)):
            raise OSError(f"{file} does not read back as it was written")

    # -- what other questions learn from -----------------------------------------------------

    def evaluations(self, groups: Iterable[int]) -> list[Evaluation]:
        """All that the searches of calibration groups tried, in the order of the groups.

        Raises:
            UserError: A file is damaged.
        """
        files = [self._lesson(group) for group in sorted(groups)]
        return [evaluation for file in files for evaluation in calibration.read_evaluations(file)]

    def prior(self) -> Prior | None:
        """The prior that the run goes by, once it is there.

        Raises:
            UserError: Its file is damaged.
        """
        file = self.root / calibration.PRIOR_FILE
        return Prior.read(file) if file.exists() else None

    def write_prior(self, prior: Prior) -> None:
        """Keep the prior that the run goes by from now on.

        Raises:
            RunFolderError: The disk does not take it.
        """
        self._write(self.root / calibration.PRIOR_FILE, prior.to_bytes())

    def _lesson(self, group: int) -> Path:
        return self.root / calibration.FOLDER / f"group-{group:06d}.parquet"

    def _write_text(self, target: Path, text: str) -> None:
        self._write(target, text.encode())

    def _write(self, target: Path, content: bytes) -> None:
        staged = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        try:
            with staged.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            staged.replace(target)
        except OSError as error:
            raise RunFolderError(f"{target} cannot be written: {error.strerror or error}") from error


def _comparable(table: pa.Table) -> pa.Table:
    """A table whose floats equal themselves: what is not a number is null in it."""
    for place, column_field in enumerate(table.schema):
        if pa.types.is_floating(column_field.type):
            column = pc.if_else(pc.is_nan(table.column(place)), pa.scalar(None, column_field.type), table.column(place))
            table = table.set_column(place, pa.field(column_field.name, column_field.type), column)
    return table


# -- reading back --------------------------------------------------------------------------


def read_settings(root: Path) -> dict[str, Any]:
    """The settings that a run was made with.

    Raises:
        UserError: The folder is no run, or holds no settings.
    """
    settings = read_json(root / "run.json").get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{root / 'run.json'} holds no settings")
    return settings


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file of a run.

    Raises:
        UserError: It cannot be read, or is no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file.parent} is no run folder: it has no {file.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{file} does not hold a JSON object")
    return value


def read_manifest(root: str | Path) -> dict[int, ShardRecord]:
    """The committed groups of a run, by number.

    Raises:
        UserError: A record is damaged, or names a file outside ``paths/``.
    """
    records: dict[int, ShardRecord] = {}
    for file in sorted((Path(root) / "manifest").glob("*.json")):
        try:
            record = ShardRecord(**read_json(file))
            _check_record(record)
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"manifest record {file} is damaged: {error}") from None
        records[record.group] = record
    return records


def _check_record(record: ShardRecord) -> None:
    """Refuse a record that is not as ``commit`` writes them: what it says is acted upon.

    Raises:
        TypeError: A field is of another type.
        ValueError: Its shard is none in ``paths/``.
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


def _items(value: Any, kind: type[list[Any]] | type[dict[str, Any]]) -> list[Any]:
    """What is in a list, or the keys of an object."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is of another type than it should be")
    return [*value]


def read_improvements(run: str | Path) -> dict[str, list[list[int]]]:
    """For each committed question, after how many programs its best one became how short.

    Raises:
        UserError: A record is damaged.
    """
    records = read_manifest(Path(run).expanduser()).values()
    return {example: steps for record in records for example, steps in record.improvements.items()}


def read_paths(run: str | Path) -> pd.DataFrame:
    """The committed rows of a run, in the order of its questions.

    Args:
        run: A run folder.

    Returns:
        A data frame with the columns of ``SCHEMA``; empty where nothing is committed yet.

    Raises:
        UserError: The folder is no run, or a committed shard is missing or damaged.
    """
    root = Path(run).expanduser()
    read_json(root / "run.json")
    tables = [_read_shard(root, record) for _, record in sorted(read_manifest(root).items())]
    frame: pd.DataFrame = (pa.concat_tables(tables) if tables else SCHEMA.empty_table()).to_pandas()
    return frame


def _read_shard(root: Path, record: ShardRecord) -> pa.Table:
    file = root / record.file
    try:
        content = file.read_bytes()
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"committed shard {file} cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != record.sha256 or not table.schema.equals(SCHEMA):
        raise UserError(f"committed shard {file} is not what its manifest record says")
    return table

"""The folder of a run: what is on disk, and how its one writer commits.

    RUN/run.json            settings, library versions, schema version
    RUN/paths/*.parquet     one row per kept program
    RUN/manifest/*.json     one record per committed shard; a shard without one does not exist
    RUN/failed/*.jsonl      examples set aside, each with its error
    RUN/calibration/, RUN/prior.safetensors   see ``pipeline.shards.calibration``
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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.prior import Evaluation, Prior
from pipeline.shards import calibration
from pipeline.shards.extension import OF_THE_EXAMPLES
from pipeline.shards.group_ranges import group_ranges
from pipeline.shards.path_row import PathRow
from pipeline.shards.reader import ShardRecord, check_unchanged, read_json, read_manifest, read_settings
from pipeline.shards.run_config import RunSettings
from pipeline.shards.schema import SCHEMA, schema_of, table_of
from pipeline.storage import (
    AnyPath,
    PathOrUrl,
    Retries,
    StorageBusyError,
    StorageError,
    UnreachableError,
    contents,
    entries,
    is_folder,
    is_there,
    locate,
    writer_of,
)
from pipeline.storage.parquet import parquet_bytes
from pipeline.tasks.task_options import TASK_OPTION, TaskOptions

#: The notes of ``run.json`` that an extension replaces.
_OF_AN_EXTENSION = ("data", "data_path", "examples", "command", "working_folder")
_PARQUET = ".parquet"
#: The end of a shard's name: by its word ``train``, ``datasets.load_dataset("parquet", data_dir=RUN)`` finds the rows,
#: and reads no other file of the run.
_SHARD_ENDING = f"-train{_PARQUET}"


class Opening(Enum):
    """What opening a folder does to the run in it."""

    BEGIN = auto()
    """There is none: a new one begins."""
    RESUME = auto()
    """The settings are the same: what is not committed is searched."""
    EXTEND = auto()
    """The settings are the same but for more examples: what is committed stays."""
    REPLACE = auto()
    """Nothing is committed: the run begins anew, with the settings of this call."""


class RunFolder:
    """The folder of one run, for its one writer."""

    def __init__(self, root: PathOrUrl) -> None:
        self.root = locate(root)
        self._store = writer_of(self.root)
        self._schema = SCHEMA
        self._shard_ending = _SHARD_ENDING

    # -- opening ---------------------------------------------------------------------------

    def open(
        self,
        config: RunSettings,
        *,
        provenance: dict[str, Any],
        extends: str | None = None,
        announce: Callable[[str], None] = lambda line: None,
    ) -> dict[int, ShardRecord]:
        """Create the folder, or resume, extend or replace the run that it holds; see ``Opening``.

        Args:
            config: The settings of this call.
            provenance: What else ``run.json`` notes, such as library versions.
            extends: Fingerprint of the stored run's examples, if this call's begin with them; else None.
            announce: Called with a line that says why it takes long, or that settings are replaced.

        Returns:
            The records of the groups that are committed already.

        Raises:
            UserError: The folder holds a run with other settings (the message names them) or something else than a
                run, or is being written by another search.
        """
        self.check(config, extends=extends)
        self._schema = schema_of(config.settings())
        try:
            self._store.acquire(announce)
            # Until now another process may have written.
            opening = self.check(config, extends=extends)
            if opening is Opening.REPLACE and differing_settings(read_settings(self.root), config):
                announce(
                    f"Nothing is committed in {self.root} yet: the settings of this call replace its earlier ones."
                )
            self._write_settings(opening, config, provenance)
            return self._resume(config)
        except StorageBusyError:
            raise UserError(f"another search is writing {self.root}; wait for its end, or stop it") from None
        except OSError as error:
            self.close()
            raise UserError(f"run folder {self.root} cannot be written: {error.strerror or error}") from None
        except BaseException:
            self.close()
            raise

    def peek(self) -> dict[str, Any] | None:
        """The settings of the run that the folder holds; None where a new run may begin.

        Raises:
            UserError: The folder cannot be read, holds something else than a run, or a run of a newer version.
        """
        try:
            begun = is_there(self.root / "run.json")
            taken = is_there(self.root) and (not is_folder(self.root) or any(map(self._is_foreign, entries(self.root))))
        except OSError as error:
            raise UserError(f"run folder {self.root} cannot be read: {error.strerror or error}") from None
        if begun:
            return read_settings(self.root)
        if taken:
            raise UserError(f"{self.root} exists and is no run folder (it has no run.json); give a new folder to --out")
        return None

    def check(self, config: RunSettings, *, extends: str | None = None) -> Opening:
        """Decide what ``open`` would do, and touch nothing.

        Args:
            config: The settings of this call.
            extends: See ``open``.

        Raises:
            UserError: The folder holds something else, or a run with other settings; the message names them.
        """
        stored = self.peek()
        if stored is None:
            return Opening.BEGIN
        if self.is_unused(stored):
            return Opening.REPLACE
        differing = differing_settings(stored, config)
        if not differing:
            return Opening.RESUME
        extending = extends is not None and extends == stored.get("data_sha256")
        refused = differing - OF_THE_EXAMPLES if extending else differing
        if not refused:
            return Opening.EXTEND
        raise other_settings(stored, config, refused)

    def is_unused(self, stored: Mapping[str, Any]) -> bool:
        """Whether a run with those settings has committed nothing and fitted no prior: no row depends on them.

        Raises:
            UserError: The manifest cannot be read.
        """
        fitted = stored.get("prior_sha256") is None and is_there(self.root / calibration.PRIOR_FILE)
        try:
            records = [file for file in entries(self.root / "manifest", ".json") if not file.name.startswith(".")]
        except OSError as error:
            raise UserError(f"run folder {self.root} cannot be read: {error.strerror or error}") from None
        return not fitted and not records

    def _write_settings(self, opening: Opening, config: RunSettings, provenance: dict[str, Any]) -> None:
        """Write ``run.json``, if this call's is another one. What must not outlive the old one is removed before."""
        described = {"run_id": config.run_id, "settings": config.settings()}
        match opening:
            case Opening.RESUME:
                return
            case Opening.BEGIN:
                # Before anything else: a folder without it is no run folder to the next call.
                self._write_json("run.json", {**described, **provenance}, indent=2)
            case Opening.REPLACE:
                self._remove_all(calibration.FOLDER, ".parquet")
                self._remove_all("failed", ".jsonl")
                for name in (calibration.PRIOR_FILE, "README.md", "_SUCCESS"):
                    self._store.remove(name)
                self._write_json("run.json", {**described, **provenance}, indent=2)
            case Opening.EXTEND:
                stored = read_json(self.root / "run.json")
                self._store.remove("_SUCCESS")
                if list(config.extended_at) != stored["settings"].get("extended_at", []):
                    self._reopen_calibration(config)
                noted = {name: provenance[name] for name in _OF_AN_EXTENSION if name in provenance}
                kept = {name: note for name, note in stored.items() if name not in _OF_AN_EXTENSION}
                self._write_json("run.json", {**kept, **described, **noted, "earlier": _earlier(stored)}, indent=2)

    def _reopen_calibration(self, config: RunSettings) -> None:
        """Remove the fitted prior of a run whose calibration set was not full, so that new examples make it full.

        No row depends on that prior: all examples so far were searched without one.
        """
        *before, known = config.extended_at
        groups = len(group_ranges(known, config.group_size, before))
        fits_anew = len(calibration.calibration_groups(config)) > groups
        if fits_anew and all(map(self._has_evaluations, read_manifest(self.root))):
            self._store.remove(calibration.PRIOR_FILE)

    def _remove_all(self, folder: str, ending: str) -> None:
        for file in entries(self.root / folder, ending):
            self._store.remove(f"{folder}/{file.name}")

    def _resume(self, config: RunSettings) -> dict[int, ShardRecord]:
        """Drop what a crash left, and read which groups are committed."""
        # Once the prior is fitted, the evaluations that it was fitted to are not needed any more.
        fitted = is_there(self.root / calibration.PRIOR_FILE)
        calibrating = range(0) if fitted else calibration.calibration_groups(config)
        shards = entries(self.root / "paths", _PARQUET)
        present = {f"paths/{shard.name}" for shard in shards}
        records = read_manifest(self.root)
        if any(not record.file.endswith(_SHARD_ENDING) for record in records.values()):
            self._shard_ending = _PARQUET  # of an earlier release: the shards of one run are named alike
        committed = {
            group: record
            for group, record in records.items()
            # A listing may lag behind.
            if (record.file in present or is_there(self.root / record.file))
            and (group not in calibrating or self._has_evaluations(group))
        }
        if is_there(self.root / "_SUCCESS"):
            self._store.remove("_SUCCESS")  # a complete run says so again
        # A group whose shard or evaluations were deleted is searched again. First its record goes: a record without a
        # shard is damage to a reader, a shard without a record does not exist.
        for group in records.keys() - committed.keys():
            self._store.remove(f"manifest/{_name_of(group)}.json")
        # The run will be marked complete at its end, which a changed shard may not be part of.
        kept = [(self.root / record.file, record) for record in committed.values()]
        for (file, record), stored in zip(kept, contents([file for file, _ in kept])):
            check_unchanged(file, stored, record)
        # A crash leaves a shard that was never recorded.
        listed = {record.file for record in committed.values()}
        for shard in shards:
            if shard.name.startswith("group-") and f"paths/{shard.name}" not in listed:
                self._store.remove(f"paths/{shard.name}")
        return committed

    def _is_foreign(self, entry: AnyPath) -> bool:
        """Whether an entry is not one that a crash leaves while ``run.json`` is written."""
        return not entry.name.startswith(self._store.own_names)

    def close(self) -> None:
        """Let another search write the folder."""
        self._store.release()

    def describe_model(self, facts: dict[str, Any]) -> None:
        """Add the facts of the loaded model to ``run.json``, once.

        Raises:
            StorageError: The store does not take it, or cannot be reached.
        """
        with _outages_as_storage_errors():
            stored = read_json(self.root / "run.json", retries=Retries.LONG)
        if "loaded_model" not in stored:
            self._write_json("run.json", {**stored, "loaded_model": facts}, indent=2)

    # -- committing ------------------------------------------------------------------------

    def commit(
        self,
        group: int,
        rows: Sequence[PathRow],
        *,
        failed: dict[str, str] | None = None,
        evaluations: Sequence[Evaluation] | None = None,
        improvements: dict[str, list[list[int]]] | None = None,
    ) -> ShardRecord:
        """Write one work group's rows and make them part of the run.

        Args:
            group: Number of the work group.
            rows: The group's rows.
            failed: The group's examples that cannot be searched, each with its error.
            evaluations: Every evaluation of its searches, if it is a calibration group.
            improvements: By example; see ``ShardRecord``.

        Raises:
            StorageError: The store does not take a file; nothing is committed then.
        """
        if evaluations is not None:
            self._write_table(self._evaluations_file(group), calibration.to_table(evaluations))
        return self._commit(group, rows, failed=failed or {}, improvements=improvements or {})

    def _commit(
        self,
        group: int,
        rows: Sequence[PathRow],
        *,
        failed: dict[str, str],
        improvements: dict[str, list[list[int]]],
    ) -> ShardRecord:
        name = _name_of(group)
        shard = f"paths/{name}{self._shard_ending}"
        digest = self._write_table(shard, table_of(rows, self._schema))

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
            base_reasons=_base_reasons(rows) if "reason" in self._schema.names else {},
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

    def clear_failures(self, committed: dict[int, ShardRecord]) -> None:
        """Remove the notes of groups that an earlier call set aside: this call tries them again.

        Raises:
            StorageError: A note stays, or the store cannot be reached.
        """
        with _outages_as_storage_errors():
            notes = entries(self.root / "failed", ".jsonl", retries=Retries.LONG)
        for file in notes:
            number = file.stem.removeprefix("group-")
            if number.isdecimal() and int(number) not in committed:
                self._store.remove(f"failed/{file.name}")

    def write_card(self, text: str) -> None:
        """Write the data set card."""
        self._write_text("README.md", text)

    def mark_complete(self) -> None:
        """Mark the run complete: every example is committed. Nothing is written after this."""
        self._write_text("_SUCCESS", "")
        self._store.tidy()

    def _write_table(self, name: str, table: pa.Table) -> str:
        """Write a table as Parquet; returns the file's SHA-256."""
        written = parquet_bytes(table)
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

    # -- calibration -----------------------------------------------------------------------

    def evaluations(self, groups: Iterable[int]) -> list[Evaluation]:
        """Every evaluation of the searches of calibration groups, in the order of the groups.

        Raises:
            UserError: A file is damaged.
            StorageError: The store cannot be reached.
        """
        files = [self.root / self._evaluations_file(group) for group in sorted(groups)]
        with _outages_as_storage_errors():
            read = [calibration.read_evaluations(file, retries=Retries.LONG) for file in files]
        return [evaluation for of_group in read for evaluation in of_group]

    def prior(self) -> Prior | None:
        """The prior that guides the run's searches, once it is fitted or given; else None.

        Raises:
            UserError: Its file is damaged.
            StorageError: The store cannot be reached.
        """
        file = self.root / calibration.PRIOR_FILE
        with _outages_as_storage_errors():
            present = is_there(file, retries=Retries.LONG)
            return calibration.read_prior(file, retries=Retries.LONG) if present else None

    def write_prior(self, prior: Prior) -> None:
        """Store the prior that guides the run's searches from now on.

        Raises:
            StorageError: The store does not take the file.
        """
        self._store.write(calibration.PRIOR_FILE, prior.to_bytes())

    def _has_evaluations(self, group: int) -> bool:
        """Whether the evaluations of a calibration group are there."""
        return is_there(self.root / self._evaluations_file(group))

    @staticmethod
    def _evaluations_file(group: int) -> str:
        return f"{calibration.FOLDER}/{_name_of(group)}.parquet"

    def _write_json(self, name: str, value: dict[str, Any], *, indent: int) -> None:
        self._write_text(name, json.dumps(value, indent=indent) + "\n")

    def _write_text(self, name: str, text: str) -> None:
        self._store.write(name, text.encode())


@contextmanager
def _outages_as_storage_errors() -> Iterator[None]:
    """Turns an outage into the error of a store that a run writes: the user's call is not wrong.

    Raises:
        StorageError: The store cannot be reached.
    """
    try:
        yield
    except UnreachableError as error:
        raise StorageError(str(error)) from error


def differing_settings(stored: Mapping[str, Any], config: RunSettings) -> set[str]:
    """The names of the settings in which a stored run and a call differ."""
    now = config.settings()
    return {key for key in stored.keys() | now.keys() if stored.get(key) != now.get(key)}


def other_settings(stored: Mapping[str, Any], config: RunSettings, differing: Iterable[str]) -> UserError:
    """The error of a call whose settings are not those of the run in the folder: it names each with both values."""
    now, names = config.settings(), sorted(differing)
    # Other examples follow from other settings; their hash says nothing more.
    shown = [key for key in names if key != "data_sha256"] or names
    lines = "".join(f"\n  {_option_of(key)}: {_shown(stored, key)} there, {_shown(now, key)} now" for key in shown)
    more = (
        "more examples extend a run if its own come first and are unchanged; " if set(names) <= OF_THE_EXAMPLES else ""
    )
    return UserError(
        f"the run folder was made with other settings:{lines}\n"
        f"{more}give the same settings to go on with it, or another folder to --out"
    )


#: Settings that no option of ``search`` sets by itself.
_NO_OPTIONS = frozenset(
    {
        *("schema_version", "prompt_version", "data_sha256", "prior_sha256", "extended_at", "calibration_space"),
        *("model.name", "model.revision"),
    }
)
#: The fields of a search's configuration that have an option.
_SEARCH_OPTIONS = frozenset({"budget", "max_length", "simulations", "action_space"})


def _option_of(key: str) -> str:
    """The option of a setting, or the setting's own name where no option sets it."""
    part, _, name = key.rpartition(".")
    has_option = name in _SEARCH_OPTIONS if part == "search" else key not in _NO_OPTIONS
    return f"--{name.replace('_', '-')}" if has_option else key


def _shown(settings: Mapping[str, Any], key: str) -> str:
    """A setting's value for a message; of a task's option the value that counts where none is stored."""
    value = settings.get(key)
    if value is None and key.startswith(TASK_OPTION):
        value = getattr(TaskOptions.from_settings(settings), key.removeprefix(TASK_OPTION), None)
    return "not given" if value is None or value is False else "given" if value is True else repr(value)


def _earlier(stored: Mapping[str, Any]) -> list[Any]:
    """The list of a run's states before its extensions, with the one that ``run.json`` holds now at its end."""
    before = stored.get("earlier", [])
    settings = {name: stored["settings"].get(name) for name in ("limit", "data_sha256")}
    noted = {name: stored[name] for name in ("run_id", *_OF_AN_EXTENSION) if name in stored}
    return [*(before if isinstance(before, list) else []), {**noted, **settings}]


def _base_reasons(rows: Sequence[PathRow]) -> dict[str, int]:
    """Number of the base model's answers by their reason."""
    base = [row for row in rows if row["program"] == list(range(row["num_layers"]))]
    return dict(Counter(row["reason"] for row in base if row.get("reason") is not None))


def _name_of(group: int) -> str:
    """The stem of the names of a group's files."""
    return f"group-{group:06d}"


def _comparable(table: pa.Table) -> pa.Table:
    """A table whose floats equal themselves: NaN is null in it."""
    for index, column_field in enumerate(table.schema):
        if pa.types.is_floating(column_field.type):
            column = pc.if_else(pc.is_nan(table.column(index)), pa.scalar(None, column_field.type), table.column(index))
            table = table.set_column(index, pa.field(column_field.name, column_field.type), column)
    return table

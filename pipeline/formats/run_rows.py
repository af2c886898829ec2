"""Run folders read as examples with verdicts, and examples with verdicts written as a run folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.formats.path_data import NO_BASELINE, PathData, SearchedExample, TriedProgram, budget_of
from pipeline.program import LayerProgram
from pipeline.shards.data_card import imported_card
from pipeline.shards.path_row import PathRow, path_row
from pipeline.shards.reader import read_json, read_paths, read_settings
from pipeline.shards.run_config import SCHEMA_VERSION
from pipeline.shards.run_folder import RunFolder
from pipeline.storage import AnyPath, StorageError, is_there

#: Examples in a shard.
GROUP = 256
UNKNOWN = "unknown"


def read_run(run: AnyPath) -> PathData:
    """Read the examples of a run, with all verdicts that its shards hold.

    Raises:
        UserError: The folder is no run, is damaged, or holds nothing yet.
    """
    settings, rows = read_settings(run), read_paths(run)
    if rows.empty:
        raise UserError(f"nothing is committed in {run} yet")
    loaded = read_json(run / "run.json").get("loaded_model")
    data = PathData(
        num_layers=int(rows.num_layers.iloc[0]),
        model=settings.get("model.name"),
        revision=settings.get("model.revision"),
        dtype=settings.get("dtype"),
        budget=budget_of(settings.get("search.budget"), run / "run.json"),
        add_special_tokens=loaded.get("special_tokens_added") if isinstance(loaded, dict) else None,
    )
    if "correct_as_asked" in rows:
        data.left_out["result of the first rendering, where the run has several"] = len(rows)
    for _, of_example in rows.groupby(["example_id", "prompt"], sort=False):
        first = of_example.iloc[0]
        tried = tuple(
            TriedProgram(
                program=LayerProgram(map(int, row["program"]), data.num_layers),
                correct=bool(row["correct"]),
                score=float(row["score"]),
                response=row["response"],
            )
            for row in of_example.to_dict("records")
        )
        if not any(one.program.is_identity for one in tried):
            data.left_out[NO_BASELINE] += 1
            continue
        data.examples.append(
            SearchedExample(
                example_id=str(first.example_id),
                task=str(first.task),
                prompt=str(first.prompt),
                answer=str(first.answer),
                tried=tried,
            )
        )
    return data


def write_run(data: PathData, out: AnyPath, *, origin: dict[str, str]) -> None:
    """Write examples with their verdicts as a complete run.

    Args:
        data: The examples with their verdicts.
        out: The run folder; one that an interrupted call left is finished.
        origin: The source, for ``run.json``: its ``format`` and ``file``.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    stored = read_settings(out) if is_there(out / "run.json") else {}
    settings = ImportedSettings(schema_version=stored.get("schema_version", SCHEMA_VERSION), data=data, origin=origin)
    folder = RunFolder(out)
    if stored and "imported.format" not in stored:
        raise UserError(f"{out} is a run that was searched, and not one that a conversion began; give another folder")
    committed = folder.open(settings, provenance={"imported": origin})
    try:
        # Where the source does not say, assume that special tokens were added, as they mostly are to plain texts.
        added = data.add_special_tokens is not False
        folder.describe_model({"num_layers": data.num_layers, "special_tokens_added": added})
        for group, start in enumerate(range(0, len(data.examples), GROUP)):
            if group not in committed:
                examples = data.examples[start : start + GROUP]
                folder.commit(group, [row for example in examples for row in _rows(example, data, settings)])
        folder.write_card(imported_card(settings.settings(), len(data.examples)))
        folder.mark_complete()
    except StorageError as error:
        raise UserError(str(error)) from None
    except (UnicodeError, pa.ArrowException) as error:
        raise UserError(f"what {origin['file']} holds does not fit into a shard: {error}") from None
    finally:
        folder.close()


@dataclass(frozen=True, kw_only=True)
class ImportedSettings:
    """The settings of a run that was not searched here.

    Attributes:
        schema_version: Version of the columns; a run that an earlier call began keeps its own.
        data: The run's content.
        origin: The source: its ``format`` and ``file``.
    """

    schema_version: int = SCHEMA_VERSION
    data: PathData
    origin: dict[str, str]
    calibration: int = 0
    group_size: int = GROUP
    extended_at: tuple[int, ...] = ()

    def settings(self) -> dict[str, Any]:
        """The settings as flat JSON, as ``run.json`` holds them; unknown settings are left out or ``unknown``."""
        tasks = {example.task for example in self.data.examples}
        return {
            "schema_version": self.schema_version,
            "model.name": self.data.model or UNKNOWN,
            "model.revision": self.data.revision or UNKNOWN,
            "dtype": self.data.dtype or UNKNOWN,
            "task": tasks.pop() if len(tasks) == 1 else "mixed",
            "search.budget": self.data.budget,
            "num_layers": self.data.num_layers,
            "data_sha256": self._content,
            "imported.format": self.origin["format"],
        }

    @cached_property
    def _content(self) -> str:
        """SHA-256 over the examples with their verdicts: other content is another run."""
        digest = hashlib.sha256()
        for example in self.data.examples:
            tried = [(str(tried.program), tried.correct, repr(tried.score)) for tried in example.tried]
            said = [example.example_id, example.task, example.prompt, example.answer, tried]
            digest.update(json.dumps(said).encode())
        return digest.hexdigest()

    @property
    def run_id(self) -> str:
        """Id of the run: the start of a SHA-256 over its settings."""
        return hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()[:16]


def _rows(example: SearchedExample, data: PathData, settings: ImportedSettings) -> Iterator[PathRow]:
    """The rows of an example, right programs first."""
    right = [
        tried for tried in example.tried if tried.correct and (data.budget is None or tried.program.within(data.budget))
    ]
    # An unknown margin (NaN) ranks as 0.
    right.sort(key=lambda tried: (len(tried.program), 0.0 if math.isnan(tried.score) else -tried.score))
    baseline = next(tried for tried in example.tried if tried.program.is_identity)
    rank = {tried.program: number for number, tried in enumerate(right, start=1)}
    others = [tried for tried in example.tried if tried.program not in rank]
    for tried in (*right, *others):
        yield path_row(
            example_id=example.example_id,
            task=example.task,
            prompt=example.prompt,
            answer=example.answer,
            response=tried.response,
            program=tried.program,
            correct=tried.correct,
            margin=tried.score,
            baseline_correct=baseline.correct,
            rank=rank.get(tried.program, 0),
            simulations=len(example.tried) - 1,
            evaluations=len(example.tried),
            layer_executions=sum(len(other.program) for other in example.tried),
            model=data.model or UNKNOWN,
            run_id=settings.run_id,
        )

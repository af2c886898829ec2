"""Verdicts of programs on examples: computed once on Ray, by the search's own scoring, and kept.

FEATURES/verdicts/<model and task>/*.parquet    verdicts, a file for each chunk that an actor ran
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.model_actor import TaskActor
from pipeline.errors import UserError
from pipeline.model_source import ModelSource
from pipeline.program import LayerProgram
from pipeline.tasks import Example, TaskOptions
from pipeline.tasks.prompting import Prompting

#: Examples that an actor receives at once.
CHUNK = 16
_SCHEMA = pa.schema([("question", pa.string()), ("program", pa.string()), ("correct", pa.bool_())])

#: Some examples, each with the programs to run on it.
VerdictChunk = list[tuple[Example, list[LayerProgram]]]


class VerdictStore:
    """Verdicts of one model on one task, in a folder that several trainings share.

    Args:
        root: The folder of all models' verdicts.
        revision: Revision of the model's weights.
        dtype: Precision of the weights.
        task: Name of the task.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.

    Raises:
        UserError: The folder cannot be written or read.
    """

    def __init__(
        self,
        root: Path,
        *,
        revision: str,
        dtype: str,
        task: str,
        max_new_tokens: int | None,
        task_options: TaskOptions,
    ) -> None:
        options = task_options.to_settings()
        name = json.dumps([revision, dtype, task, max_new_tokens, *([options] if options else [])], sort_keys=True)
        self.folder = root / hashlib.sha256(name.encode()).hexdigest()[:24]
        self._known: dict[tuple[str, str], bool] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"verdicts cannot be kept in {root}: {error.strerror or error}") from None
        for file in sorted(self.folder.glob("*.parquet")):
            try:
                kept = pq.read_table(file, schema=_SCHEMA).to_pylist()
            except (OSError, pa.ArrowException):
                continue  # a damaged file counts as absent
            self._remember(kept)

    def absent(self, example: Example, programs: Sequence[LayerProgram]) -> list[LayerProgram]:
        """The programs that have no verdict on an example."""
        key = _key(example)
        return [program for program in programs if (key, str(program)) not in self._known]

    def add(self, chunk: VerdictChunk, correct: Sequence[Sequence[bool]]) -> None:
        """Keep the verdicts of a chunk, a list for each of its examples.

        Raises:
            UserError: The verdicts cannot be written.
        """
        rows: list[dict[str, Any]] = [
            {"question": _key(example), "program": str(program), "correct": verdict}
            for (example, programs), verdicts in zip(chunk, correct, strict=True)
            for program, verdict in zip(programs, verdicts, strict=True)
        ]
        named = "\n".join(f"{row['question']} {row['program']}" for row in rows)
        file = self.folder / f"{hashlib.sha256(named.encode()).hexdigest()[:24]}.parquet"
        staged = self.folder / f"{uuid.uuid4().hex}.part"
        try:
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), staged)
            staged.replace(file)
        except OSError as error:
            staged.unlink(missing_ok=True)
            raise UserError(f"verdicts cannot be written to {self.folder}: {error}") from None
        self._remember(rows)

    def read(self, examples: Sequence[Example], programs: Sequence[LayerProgram]) -> np.ndarray[Any, Any]:
        """Verdicts that are kept, bool ``[examples, programs]``."""
        return np.array([[self._known[_key(example), str(program)] for program in programs] for example in examples])

    def _remember(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            # The first verdict holds, should another training have written one too.
            self._known.setdefault((row["question"], row["program"]), row["correct"])


def _key(example: Example) -> str:
    return hashlib.sha256(json.dumps(example.to_json(), sort_keys=True).encode()).hexdigest()[:32]


class VerdictActor(TaskActor):
    """The Ray actor that runs programs on examples."""

    def work(self, chunk: VerdictChunk) -> list[list[bool]]:
        """For each example whether each of its programs is right on it."""
        self._begin()
        prepared = [self._task.prepare(example, self._model.tokenizer) for example, _ in chunk]
        pairs = [(one, program) for one, (_, programs) in zip(prepared, chunk) for program in programs]
        outcomes = iter(
            self._task.score(
                self._model,
                [one for one, _ in pairs],
                [program for _, program in pairs],
                need_response=False,
            )
        )
        return [[next(outcomes).correct for _ in programs] for _, programs in chunk]


def run_programs(
    store: VerdictStore,
    examples: Sequence[Example],
    programs: Sequence[LayerProgram],
    *,
    model: ModelSource,
    device: str,
    dtype: str,
    pool: PoolConfig,
    task: str,
    max_new_tokens: int | None,
    task_options: TaskOptions,
    prompting: Prompting | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Run programs on examples on Ray actors, where the store has no verdict yet.

    Args:
        store: Keeps the verdicts.
        examples: The examples.
        programs: The programs.
        model: The frozen model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        pool: Number of actors, and the resources of each.
        task: Name of the examples' task.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        prompting: The settings of the prompts that the examples do not bring; None for those of a new run.
        show: Receives the number of programs that were run, and their total.

    Raises:
        UserError: The model cannot be loaded, or an example cannot be prepared.
    """
    # Questions behind the same worked examples come into one chunk: what they share runs once.
    alike = sorted(examples, key=lambda example: example.question)
    missing = [(example, absent) for example in alike if (absent := store.absent(example, programs))]
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    total = sum(len(absent) for _, absent in missing)
    if chunks:
        actors: ActorPool[VerdictChunk] = ActorPool(
            VerdictActor,
            (model, device, dtype, pool.cpus_per_actor, task, max_new_tokens, task_options, prompting),
            pool,
        )
        done = 0
        with actors:
            for chunk, correct in actors.map(chunks):
                store.add(chunk, correct)
                done += sum(len(absent) for _, absent in chunk)
                show(done, total)

"""The searched model at work for a training: on Ray actors that start when something is first missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.distributed.cluster import Placement, Resources, find_placement
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_paths, read_settings
from pipeline.shards.source_examples import questions_of
from pipeline.storage import AnyPath
from pipeline.tasks import Example
from router.artifact.base_model import BaseModelRef
from router.features.hidden_states import StateStore
from router.features.prompt_template import MOST_GIB, Form
from router.features.window_features import FeatureStore, extract, feature_key
from router.labels.labelled import Labelled
from router.menu.candidates import SearchedRun
from router.menu.ridge import summarize
from router.menu.verdict_store import VerdictStore, judge

#: Rows whose features are in memory at once.
_BATCH = 256

Array = np.ndarray[Any, Any]


@dataclass(kw_only=True)
class FrozenModelService(AbstractContextManager["FrozenModelService"]):
    """Reads prompts along their programs, and judges programs; use as a context manager.

    Attributes:
        base: The model that was searched.
        location: Where it lies, if not where it was.
        dtype: Its precision.
        resources: What actors run on.
        store: The features that there are.
        announce: Told, in a line each, what is about to happen.
        show: Told what is being done, how much of it is done, of how much.
    """

    base: BaseModelRef
    location: str | None
    dtype: str
    resources: Resources
    store: FeatureStore
    announce: Callable[[str], None]
    show: Callable[[str, int, int], None]
    _found: tuple[ModelSource, Placement] | None = field(default=None, init=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._found is not None:
            import ray

            ray.shutdown()

    def fill(self, rows: Sequence[Labelled]) -> None:
        """Compute the features of rows that the store has not.

        Raises:
            UserError: The model is not there, or its states are no numbers.
        """
        absent = len({feature_key(row) for row in rows if row not in self.store})
        if not absent:
            self.announce(f"All features are in {self.store.folder} already.")
            return
        source, place = self._model()
        self.announce(
            f"Reading {absent} prompts along their programs, {len(rows) - absent} known already; "
            f"up to {place.pool.num_actors} actors on {place.device} in {self.dtype}."
        )
        extract(
            self.store,
            rows,
            model=source,
            device=place.device,
            dtype=self.dtype,
            pool=place.pool,
            show=lambda done: self.show("prompts read", done, absent),
        )

    def searched(self, run: AnyPath, verdicts: Path) -> SearchedRun:
        """A run's rows and questions, on which further programs can be run.

        Args:
            run: The run.
            verdicts: Folder of the verdicts that are kept.

        Raises:
            UserError: The questions cannot be read again, or are too few.
        """
        rows, settings = read_paths(run), read_settings(run)
        known = set(rows.example_id)
        if len(known) < 2:
            raise UserError(
                f"{run} has {len(known)} questions: too few to tell what others should expect; leave it out, or train "
                "with --labels consensus"
            )
        try:
            examples = [example for example in questions_of(run) if example.id in known]
        except UserError as error:
            raise UserError(
                f"the questions of {run} cannot be read again ({error}), and no program can be judged on them; "
                "train with --labels consensus or shortest, and --head per-layer"
            ) from None
        task, max_new_tokens = settings["task"], settings.get("max_new_tokens")
        store = VerdictStore(
            verdicts, revision=self.base.revision, dtype=self.dtype, task=task, max_new_tokens=max_new_tokens
        )

        def run_programs(some: Sequence[Example], programs: Sequence[LayerProgram]) -> Array:
            if any(store.absent(example, programs) for example in some):
                source, place = self._model()
                self.announce(f"Running {len(programs)} programs on {len(some)} questions of {run}.")
                judge(
                    store,
                    some,
                    programs,
                    model=source,
                    device=place.device,
                    dtype=self.dtype,
                    pool=place.pool,
                    task=task,
                    max_new_tokens=max_new_tokens,
                    show=lambda done, total: self.show("programs judged", done, total),
                )
            return store.read(some, programs)

        return SearchedRun(rows=rows, examples=examples, judge=run_programs)

    def states(self, rows: Sequence[Labelled], *, form: Form, reading: str, early: int) -> StateStore:
        """The states that the first layers make of rows' prompts.

        Args:
            rows: The rows.
            form: How prompts are put.
            reading: What is kept of them.
            early: Layers that run.

        Raises:
            UserError: The model is not there, its states are no numbers, or there is no room for them.
        """
        store = StateStore(
            self.store.folder.parent,
            revision=self.base.revision,
            dtype=self.dtype,
            form=form,
            reading=reading,
            early=early,
        )
        absent = store.absent([row.prompt for row in rows])
        if not absent:
            self.announce(f"All states are in {store.folder} already.")
            return store
        source, place = self._model()
        self.announce(
            f"Reading {len(absent)} prompts with the first {early} layers; up to {place.pool.num_actors} actors on "
            f"{place.device} in {self.dtype}."
        )
        store.fill(
            absent,
            model=source,
            device=place.device,
            dtype=self.dtype,
            pool=place.pool,
            most_gib=MOST_GIB,
            show=lambda done: self.show("prompts read", done, len(absent)),
        )
        return store

    def summaries(self, rows: Sequence[Labelled]) -> Array:
        """What the untouched model makes of rows' prompts, ``[N, …]``; see ``router.menu.ridge.summarize``."""
        self.fill(rows)
        starts = range(0, len(rows), _BATCH)
        return np.concatenate([summarize(self.store.read(rows[start : start + _BATCH])) for start in starts])

    def _model(self) -> tuple[ModelSource, Placement]:
        """The searched model, and where actors run it."""
        if self._found is None:
            source = resolve_model(self.location or self.base.name)
            if source.revision != self.base.revision:
                raise UserError(
                    f"{source.name!r} is not the model that was searched: its revision is {source.revision[:19]}…, "
                    f"the runs have {self.base.revision[:19]}…; say where that one lies with --base"
                )
            if self.resources.dtype not in ("auto", self.dtype):
                raise UserError(
                    f"--dtype {self.resources.dtype}, but the runs were searched in {self.dtype}; leave it out"
                )
            self._found = source, find_placement(self.resources)
        return self._found

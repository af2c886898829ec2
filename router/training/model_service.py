"""The base model at work for a training: it reads prompts and runs programs, and keeps all results.

Every method first looks up kept results. Ray starts in ``on_ray``, at the first result that is missing, and nowhere
else; a training whose results are all kept starts none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeline.distributed.cluster import Placement, Resources, joined_cluster
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.tasks import Example, TaskOptions
from router.artifact.base_model import BaseModelRef, require_revision
from router.features.hidden_states import StateStore
from router.features.prompt_template import MOST_GIB, PromptTemplate
from router.features.window_features import FeatureStore, extract
from router.labels.labelled import Labelled
from router.menu.candidates import SearchedRun
from router.menu.ridge import summarize
from router.menu.verdict_store import VerdictStore, run_programs

#: Rows whose features are in memory at once.
_BATCH = 256

Array = np.ndarray[Any, Any]


@dataclass(kw_only=True)
class FrozenModelService(AbstractContextManager["FrozenModelService"]):
    """Reads prompts and runs programs on Ray actors; use as a context manager.

    Attributes:
        base: The model that was searched.
        location: Location of the base model, if another than in the search.
        dtype: Precision of the weights.
        add_special_tokens: Whether the tokenizer adds its special tokens.
        resources: Resources of the actors.
        folder: Folder of all kept results.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.
        started: The model, and where actors run it, if Ray runs already; else the service starts it where needed.
    """

    base: BaseModelRef
    location: str | None
    dtype: str
    add_special_tokens: bool
    resources: Resources
    folder: Path
    announce: Callable[[str], None]
    show: Callable[[str, int, int], None]
    started: tuple[ModelSource, Placement] | None = None
    _cluster: ExitStack = field(default_factory=ExitStack, init=False)
    _started_here: bool = field(default=False, init=False)
    _feature_stores: dict[int, FeatureStore] = field(default_factory=dict, init=False)
    _verdict_stores: dict[tuple[str, int | None, TaskOptions], VerdictStore] = field(default_factory=dict, init=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.close()
        if self._started_here:
            self.started, self._started_here = None, False

    def features(self, rows: Sequence[Labelled], *, num_windows: int) -> FeatureStore:
        """A store that has the window features of the rows' prompts along their programs.

        Raises:
            UserError: The model is not there, or its states are not finite.
        """
        store = self._feature_store(num_windows)
        absent = store.absent(rows)
        if not absent:
            self.announce(f"All features are in {store.folder} already.")
            return store
        source, placement = self.on_ray()
        self.announce(
            f"Reading {len(absent)} prompts along their programs, {len(rows) - len(absent)} known already; "
            f"{placement.describe()}."
        )
        extract(
            store,
            absent,
            model=source,
            device=placement.device,
            dtype=self.dtype,
            pool=placement.pool,
            show=lambda done: self.show("prompts read", done, len(absent)),
        )
        return store

    def summaries(self, rows: Sequence[Labelled], *, num_windows: int) -> Array:
        """Summaries of the hidden states on the rows' prompts, ``[N, …]``; see ``router.menu.ridge.summarize``.

        Raises:
            UserError: The model is not there, or its states are not finite.
        """
        store = self.features(rows, num_windows=num_windows)
        starts = range(0, len(rows), _BATCH)
        return np.concatenate([summarize(store.read(rows[start : start + _BATCH])) for start in starts])

    def verdicts(self, run: SearchedRun, examples: Sequence[Example], programs: Sequence[LayerProgram]) -> Array:
        """Whether each program is right on each example of a run, bool ``[N, M]``.

        Raises:
            UserError: The model is not there, or an example cannot be prepared.
        """
        store = self._verdict_store(run)
        if any(store.absent(example, programs) for example in examples):
            source, placement = self.on_ray()
            self.announce(f"Running {len(programs)} programs on {len(examples)} examples of {run.run}.")
            run_programs(
                store,
                examples,
                programs,
                model=source,
                device=placement.device,
                dtype=self.dtype,
                pool=placement.pool,
                task=run.task,
                max_new_tokens=run.max_new_tokens,
                task_options=run.task_options,
                prompting=run.prompting,
                show=lambda done, total: self.show("programs run", done, total),
            )
        return store.read(examples, programs)

    def states(
        self, rows: Sequence[Labelled], *, prompt_template: PromptTemplate, state_selection: str, early: int
    ) -> StateStore:
        """A store that has the hidden states of the rows' prompts up to layer ``early``.

        Args:
            rows: The rows.
            prompt_template: The template of each prompt.
            state_selection: Which states are kept; see ``router.features.hidden_states``.
            early: Layers that run.

        Raises:
            UserError: The model is not there, its states are not finite, or there is no room for them.
        """
        store = StateStore(
            self.folder,
            revision=self.base.revision,
            dtype=self.dtype,
            prompt_template=prompt_template,
            state_selection=state_selection,
            early=early,
        )
        absent = store.absent([row.prompt for row in rows])
        if not absent:
            self.announce(f"All states are in {store.folder} already.")
            return store
        source, placement = self.on_ray()
        self.announce(f"Reading {len(absent)} prompts with the first {early} layers; {placement.describe()}.")
        store.fill(
            absent,
            model=source,
            device=placement.device,
            dtype=self.dtype,
            pool=placement.pool,
            most_gib=MOST_GIB,
            show=lambda done: self.show("prompts read", done, len(absent)),
        )
        return store

    # -- inside ----------------------------------------------------------------------------

    def _feature_store(self, num_windows: int) -> FeatureStore:
        if num_windows not in self._feature_stores:
            self._feature_stores[num_windows] = FeatureStore(
                self.folder,
                revision=self.base.revision,
                dtype=self.dtype,
                num_windows=num_windows,
                add_special_tokens=self.add_special_tokens,
            )
        return self._feature_stores[num_windows]

    def _verdict_store(self, run: SearchedRun) -> VerdictStore:
        key = run.task, run.max_new_tokens, run.task_options
        if key not in self._verdict_stores:
            self._verdict_stores[key] = VerdictStore(
                self.folder / "verdicts",
                revision=self.base.revision,
                dtype=self.dtype,
                task=run.task,
                max_new_tokens=run.max_new_tokens,
                task_options=run.task_options,
            )
        return self._verdict_stores[key]

    def on_ray(self) -> tuple[ModelSource, Placement]:
        """The base model, and where actors run it. The first call joins or starts Ray.

        Raises:
            UserError: The model is not the one that was searched, or cannot run in its precision.
        """
        if self.started is None:
            source = resolve_model(self.location or self.base.name)
            require_revision(
                source, self.base, what="the model that was searched", hint="say where it lies with --base"
            )
            if self.resources.dtype not in ("auto", self.dtype):
                raise UserError(
                    f"--dtype {self.resources.dtype}, but the runs were searched in {self.dtype}; leave it out"
                )
            placement = self._cluster.enter_context(joined_cluster(self.resources, source))
            self.started, self._started_here = (source, replace(placement, dtype=self.dtype)), True
        return self.started

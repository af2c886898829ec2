"""The actor of a search: one base model, the search trees of a work group in step. Examples go in, rows come out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray

from pipeline.distributed.installation import Installation, installation
from pipeline.distributed.kept_rows import Replay, rows_to_keep
from pipeline.distributed.model_actor import ModelActor
from pipeline.errors import UserError
from pipeline.prior import Evaluation, Prior
from pipeline.program import LayerProgram
from pipeline.search.group_search import ExampleSearch, search_group
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example, Outcome, PreparedExample, get_task
from pipeline.tasks.base_answer import BaseAnswer


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The answer of an actor that has loaded the model.

    Attributes:
        facts: The model's class, depth and prompt format, and what the actor runs, for ``run.json``.
        installation: What the actor runs.
        node: Ray's id of the actor's node.
    """

    facts: dict[str, Any]
    installation: Installation = field(default_factory=installation)
    node: str = field(default_factory=lambda: ray.get_runtime_context().get_node_id() if ray.is_initialized() else "")


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """The result of searching a chunk.

    Attributes:
        rows: The rows to keep; see ``pipeline.shards.schema.SCHEMA``.
        failed: Examples whose prompt cannot be prepared or does not fit, each with its error.
        evaluations: Every evaluation, if the group is in the calibration set: a prior is fitted to them.
        improvements: For each example, pairs of an evaluation's number and the new best length.
    """

    rows: list[dict[str, Any]]
    failed: dict[str, str]
    evaluations: list[Evaluation]
    improvements: dict[str, list[list[int]]] = field(default_factory=dict)


class SearchEvaluator(ModelActor):
    """The Ray actor of a search: takes chunks of work groups.

    ``activity`` may be called while ``search`` runs.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__(
            config.model,
            device=config.device,
            dtype=config.dtype,
            threads=config.cpus_per_actor,
            cache_gib=config.cache_gib,
        )
        self._config = config
        self._task = get_task(
            config.task,
            max_new_tokens=config.max_new_tokens,
            options=config.task_options,
            prompting=config.prompting,
        )
        self._programs_run = self._programs_replayed = 0

    def load(self) -> Loaded:
        """Load the model.

        Raises:
            UserError: The model cannot be loaded, is outside the contract, or the budget allows no layer; or the task
                needs a chat template and the model has none.
        """
        runs: Installation = super().load()
        self._task.check_tokenizer(self._model.tokenizer)
        if not LayerProgram((0,), self._model.num_layers).within(self._config.search.budget):
            raise UserError(
                f"--budget {self._config.search.budget:g} allows less than one of the model's "
                f"{self._model.num_layers} layers"
            )
        chat = self._task.chat and self._model.tokenizer.chat_template is not None
        return Loaded(
            facts={
                "class": type(self._model.hf_model).__name__,
                "num_layers": self._model.num_layers,
                "chat_template_applied": chat,
                "special_tokens_added": not chat,
                "installation": runs.to_json(),
            },
            installation=runs,
        )

    def preview(self, examples: Sequence[Example]) -> list[BaseAnswer]:
        """The base model's answers to examples; those whose prompt cannot be prepared are left out."""
        self._begin()
        prepared = []
        for example in examples:
            with suppress(Exception):  # the search sets it aside, with the reason
                prepared.append(self._prepare(example))
        identity, step = LayerProgram.identity(self._model.num_layers), self._config.group_size
        answers = []
        for start in range(0, len(prepared), step):
            some = prepared[start : start + step]
            outcomes = self._task.score(self._model, some, [identity] * len(some), need_response=True)
            answers += [
                BaseAnswer(
                    prompt=one.prompt,
                    references=one.example.references,
                    response=outcome.response or "",
                    correct=outcome.correct,
                    reason=outcome.reason,
                    reference_fits=self._task.reference_fits(one),
                )
                for one, outcome in zip(some, outcomes, strict=True)
            ]
        return answers

    def search(self, examples: Sequence[Example], prior: Prior | None = None, calibrates: bool = False) -> GroupResult:
        """Search examples.

        Args:
            examples: A work group, or a chunk of one.
            prior: Guides the search; None to search without a prior.
            calibrates: Whether the group is in the calibration set.
        """
        self._begin()
        model, task = self._model, self._task
        prepared, failed = [], {}
        for example in examples:
            try:
                prepared.append(self._prepare(example))
            except Exception as error:
                # An error of a tokenizer or a chat template concerns one example; the others go on.
                failed[example.id] = f"{type(error).__name__}: {error}"
        searched = search_group(
            prepared,
            num_layers=model.num_layers,
            config=replace(self._config, search=self._config.calibration_search) if calibrates else self._config,
            score=partial(task.score, model),
            prior=prior,
            on_step=self._count,
        )
        return GroupResult(
            rows=[row for item in searched for row in rows_to_keep(item, self._config, self._replay(item))],
            failed=failed,
            evaluations=[evaluation for item in searched for evaluation in item.evaluations()] if calibrates else [],
            improvements={item.prepared.example.id: item.improvements() for item in searched},
        )

    def _replay(self, item: ExampleSearch[PreparedExample, Outcome]) -> Replay | None:
        """A function that evaluates an example's programs with stock models; None without ``reverify``."""
        if not self._config.reverify:
            return None
        from pipeline.engine.stock_runner import StockRunner

        oracle = StockRunner(self._model)

        def replay(program: LayerProgram) -> Outcome:
            whole = program == item.tree.identity.program
            [outcome] = self._task.score(oracle, [item.prepared], [program], need_response=whole)
            self._programs_replayed += 1
            return outcome

        return replay

    def _prepare(self, example: Example) -> PreparedExample:
        prepared = self._task.prepare(example, self._model.tokenizer)
        needed = self._task.tokens(prepared)
        if needed > self._model.context_length:
            raise ValueError(
                f"the prompt needs {needed} tokens with its answer, the model reads {self._model.context_length}"
            )
        return prepared

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def activity(self) -> tuple[int, int]:
        """The numbers of programs that the actor has run so far, and that it has replayed."""
        return self._programs_run, self._programs_replayed

    def _count(self, programs: int) -> None:
        self._programs_run += programs

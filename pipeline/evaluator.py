"""The evaluator: one frozen model, many trees. A work group goes in, finished rows come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from pipeline.actor import ModelActor
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.group import Searched, search_group
from pipeline.prior import Evaluation, Prior
from pipeline.program import LayerProgram
from pipeline.search import SearchTree
from pipeline.tasks import Example, Question, get_task

_MOST_COUNTED = 127


def rows_to_keep(
    item: Searched, config: RunConfig, survives: Callable[[LayerProgram], bool] = lambda program: True
) -> list[dict[str, Any]]:
    """A row for each program that the run keeps, and for the identity program.

    Right programs within the budget come first, best first. The keys are those of ``pipeline.shards.SCHEMA``.

    Args:
        item: A question with its finished search.
        config: What the run keeps.
        survives: Asked of every program that is to have a row, but for the identity's, which has one in any case; the
            next best takes the place of one that does not.
    """
    tree, example = item.tree, item.question.example
    identity = tree.identity
    ranked = [verdict.program for verdict in tree.ranked()]
    standing = {identity.program: True}
    while True:
        kept = list(dict.fromkeys([*_chosen(tree, ranked, config.keep), identity.program]))
        unknown = [program for program in kept if program not in standing]
        if not unknown:
            break
        standing |= {program: survives(program) for program in unknown}
        ranked = [program for program in ranked if standing.get(program, True)]
    kept = [program for program in kept if standing[program]]
    layer_executions = sum(outcome.layer_executions for outcome in item.outcomes.values())
    return [
        {
            "example_id": example.id,
            "task": example.task,
            "prompt": item.question.prompt,
            "answer": example.answer,
            "response": item.outcomes[program].response,
            "program": list(program.layers),
            "counts": storable_counts(program),
            "length": len(program),
            "num_layers": program.num_layers,
            "saved_layers": program.saved_layers,
            "correct": item.outcomes[program].correct,
            "correct_as_asked": item.outcomes[program].correct_as_asked,
            "score": item.outcomes[program].margin,
            "baseline_correct": identity.correct,
            "is_best": ranked[:1] == [program],
            "rank": ranked.index(program) + 1 if program in ranked else 0,
            "simulations": tree.simulations,
            "evaluations": len(item.outcomes),
            "layer_executions": layer_executions,
            "model": config.model.name,
            "run_id": config.run_id,
        }
        for program in kept
    ]


def _chosen(tree: SearchTree, ranked: list[LayerProgram], keep: int | str) -> list[LayerProgram]:
    """The programs that a run keeps of a question, right ones first."""
    if isinstance(keep, int):
        return ranked[:keep]
    wanted = list(tree.verdicts) if keep == "all" else [verdict.program for verdict in tree.pareto()]
    return [*(program for program in ranked if program in set(wanted)), *wanted]


def storable_counts(program: LayerProgram) -> list[int] | None:
    """Counts as the shards hold them: a byte each, so a layer that runs more than 127 times has none."""
    counts = program.counts
    return None if counts is None or max(counts) > _MOST_COUNTED else list(counts)


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What an actor made of a work group.

    Attributes:
        rows: The rows to keep; see ``pipeline.shards.SCHEMA``.
        failed: Questions that the model cannot be asked, each with its error.
        evaluations: Everything that was tried, where the group teaches: what a prior can be fitted on.
        improvements: For each question, after how many programs its best one became how short.
    """

    rows: list[dict[str, Any]]
    failed: dict[str, str]
    evaluations: list[Evaluation]
    improvements: dict[str, list[list[int]]] = field(default_factory=dict)


class SearchEvaluator(ModelActor):
    """The Ray actor of a search: takes work groups.

    ``programs_run`` may be asked for while ``search`` runs.
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
        self._task = get_task(config.task, max_new_tokens=config.max_new_tokens)
        self._programs_run = 0

    def load(self) -> dict[str, Any]:
        """Load the model; returns what the run notes about it.

        Raises:
            UserError: The model cannot be loaded, is outside the contract, or the budget allows no layer.
        """
        super().load()
        if not LayerProgram((0,), self._model.num_layers).within(self._config.search.budget):
            raise UserError(
                f"--budget {self._config.search.budget:g} allows less than one of the model's "
                f"{self._model.num_layers} layers"
            )
        chat = self._task.chat and self._model.tokenizer.chat_template is not None
        return {
            "class": type(self._model.hf_model).__name__,
            "num_layers": self._model.num_layers,
            "chat_template_applied": chat,
            "special_tokens_added": not chat,
        }

    def search(self, examples: Sequence[Example], prior: Prior | None = None, teaches: bool = False) -> GroupResult:
        """Search one work group, with what other groups taught, or to teach them."""
        self._begin()
        model, task = self._model, self._task
        questions, failed = [], {}
        for example in examples:
            try:
                questions.append(self._prepare(example))
            except Exception as error:
                # Whatever a tokenizer or a chat template makes of one question, the others go on.
                failed[example.id] = f"{type(error).__name__}: {error}"
        searched = search_group(
            questions,
            num_layers=model.num_layers,
            config=replace(self._config, search=self._config.calibration_search) if teaches else self._config,
            score=lambda questions, programs, need_response: task.score(
                model, questions, programs, need_response=need_response
            ),
            prior=prior,
            on_step=self._count,
        )
        return GroupResult(
            rows=[row for item in searched for row in rows_to_keep(item, self._config, self._survives(item))],
            failed=failed,
            evaluations=[evaluation for item in searched for evaluation in item.evaluations()] if teaches else [],
            improvements={item.question.example.id: item.improvements() for item in searched},
        )

    def _survives(self, item: Searched) -> Callable[[LayerProgram], bool]:
        """Whether the oracle confirms a program's verdict on a question; whatever it is where nobody asks."""
        if not self._config.reverify:
            return lambda program: True
        from pipeline.engine.oracle import Oracle

        oracle = Oracle(self._model)

        def confirmed(program: LayerProgram) -> bool:
            [outcome] = self._task.score(oracle, [item.question], [program], need_response=False)
            return outcome.correct == item.outcomes[program].correct

        return confirmed

    def _prepare(self, example: Example) -> Question:
        question = self._task.prepare(example, self._model.tokenizer)
        needed = self._task.tokens(question)
        if needed > self._model.context_length:
            raise ValueError(
                f"the question needs {needed} tokens with its answer, the model reads {self._model.context_length}"
            )
        return question

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def programs_run(self) -> int:
        """Programs run by this actor so far."""
        return self._programs_run

    def _count(self, programs: int) -> None:
        self._programs_run += programs

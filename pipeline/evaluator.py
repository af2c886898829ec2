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
from pipeline.search import Verdict, ranked, unbeaten
from pipeline.tasks import Example, Outcome, Question, get_task

_MOST_COUNTED = 127
#: What a program makes of a question when it is run once more, in another way.
Replay = Callable[[LayerProgram], Outcome]


def rows_to_keep(item: Searched, config: RunConfig, replay: Replay | None = None) -> list[dict[str, Any]]:
    """A row for each program that the run keeps, and for the identity program.

    Right programs within the budget come first, best first. The keys are those of ``pipeline.schema.SCHEMA``.

    Args:
        item: A question with its finished search.
        config: What the run keeps.
        replay: Asked of every program that is to have a row, if given. One whose verdicts it does not confirm has
            none, and the next best takes its place; the identity's row, which is there in any case, says what the
            replay says.
    """
    tree, example, identity = item.tree, item.question.example, item.tree.identity.program
    verdicts, outcomes = dict(tree.verdicts), dict(item.outcomes)
    if replay is not None:
        outcomes[identity] = replace(replay(identity), layer_executions=outcomes[identity].layer_executions)
        told = outcomes[identity]
        verdicts[identity] = Verdict(program=identity, correct=told.correct, margin=told.margin)
    confirmed = {identity}
    while True:
        right = [verdict.program for verdict in ranked(verdicts.values(), tree.config.budget)]
        kept = list(dict.fromkeys([*_chosen(verdicts, right, config), identity]))
        unknown = [program for program in kept if program not in confirmed]
        if replay is None or not unknown:
            break
        for program in unknown:
            if replay(program).verdicts == outcomes[program].verdicts:
                confirmed.add(program)
            else:
                del verdicts[program]
    layer_executions = sum(outcome.layer_executions for outcome in item.outcomes.values())
    return [
        {
            "example_id": example.id,
            "task": example.task,
            "prompt": item.question.prompt,
            "answer": example.answer,
            "response": outcomes[program].response,
            "program": list(program.layers),
            "counts": storable_counts(program),
            "length": len(program),
            "num_layers": program.num_layers,
            "saved_layers": program.saved_layers,
            "correct": outcomes[program].correct,
            "correct_as_asked": outcomes[program].correct_as_asked,
            "score": outcomes[program].margin,
            "baseline_correct": outcomes[identity].correct,
            "is_best": right[:1] == [program],
            "rank": right.index(program) + 1 if program in right else 0,
            "simulations": tree.simulations,
            "evaluations": len(item.outcomes),
            "layer_executions": layer_executions,
            "model": config.model.name,
            "run_id": config.run_id,
        }
        for program in kept
    ]


def _chosen(verdicts: dict[LayerProgram, Verdict], right: list[LayerProgram], config: RunConfig) -> list[LayerProgram]:
    """The programs that a run keeps of a question, right ones first."""
    if isinstance(config.keep, int):
        return right[: config.keep]
    wanted = list(verdicts)
    if config.keep == "pareto":
        wanted = [verdict.program for verdict in unbeaten(verdicts.values(), config.search.budget)]
    return [*(program for program in right if program in set(wanted)), *wanted]


def storable_counts(program: LayerProgram) -> list[int] | None:
    """Counts as the shards hold them: a byte each, so a layer that runs more than 127 times has none."""
    counts = program.counts
    return None if counts is None or max(counts) > _MOST_COUNTED else list(counts)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An actor that is ready.

    Attributes:
        facts: What a run notes about the model.
        node: Ray's name of the machine that the actor is on.
    """

    facts: dict[str, Any]
    node: str = field(default_factory=lambda: ray.get_runtime_context().get_node_id() if ray.is_initialized() else "")


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """What an actor made of a work group.

    Attributes:
        rows: The rows to keep; see ``pipeline.schema.SCHEMA``.
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

    ``activity`` may be asked for while ``search`` runs.
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
        self._programs_run = self._programs_replayed = 0

    def load(self) -> Loaded:
        """Load the model.

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
        return Loaded(
            facts={
                "class": type(self._model.hf_model).__name__,
                "num_layers": self._model.num_layers,
                "chat_template_applied": chat,
                "special_tokens_added": not chat,
            }
        )

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
            rows=[row for item in searched for row in rows_to_keep(item, self._config, self._replay(item))],
            failed=failed,
            evaluations=[evaluation for item in searched for evaluation in item.evaluations()] if teaches else [],
            improvements={item.question.example.id: item.improvements() for item in searched},
        )

    def _replay(self, item: Searched) -> Replay | None:
        """What stock models say of a question's programs, where the run asks for it."""
        if not self._config.reverify:
            return None
        from pipeline.engine.oracle import Oracle

        oracle = Oracle(self._model)

        def replay(program: LayerProgram) -> Outcome:
            whole = program == item.tree.identity.program
            [outcome] = self._task.score(oracle, [item.question], [program], need_response=whole)
            self._programs_replayed += 1
            return outcome

        return replay

    def _prepare(self, example: Example) -> Question:
        question = self._task.prepare(example, self._model.tokenizer)
        needed = self._task.tokens(question)
        if needed > self._model.context_length:
            raise ValueError(
                f"the question needs {needed} tokens with its answer, the model reads {self._model.context_length}"
            )
        return question

    @ray.method(concurrency_group="progress")  # type: ignore[untyped-decorator]
    def activity(self) -> tuple[int, int]:
        """Programs that this actor's searches have run so far, and those that it has replayed."""
        return self._programs_run, self._programs_replayed

    def _count(self, programs: int) -> None:
        self._programs_run += programs

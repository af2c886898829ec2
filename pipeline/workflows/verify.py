"""Replaying a run: do stock transformers models confirm its labels?

The kept programs are run once more by ``pipeline.engine.stock_runner``, each example alone, without a prefix cache;
the task scores the answers as in a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import Placement, joined_cluster
from pipeline.distributed.model_actor import TaskActor
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_json, read_paths, read_settings
from pipeline.shards.source_examples import examples_of, options_of, prompting_of
from pipeline.storage import AnyPath, where_it_is
from pipeline.tasks import Example, Outcome, PreparedExample, TaskOptions, get_task
from pipeline.tasks.prompting import Prompting
from pipeline.tasks.types import Reason
from pipeline.workflows.verify_request import VerifyRequest

if TYPE_CHECKING:
    import pandas as pd

#: Examples that an actor receives at once, each with its rows.
EXAMPLES_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayedLabel:
    """The label that a row gives its program.

    Attributes:
        program: The program.
        correct: Whether its answer is right.
        as_asked: Whether its answer in the first rendering is right; None if the example has no other rendering.
        margin: The margin in the row.
        response: The program's answer in the row; None where the row has none.
    """

    program: LayerProgram
    correct: bool
    as_asked: bool | None
    margin: float
    response: str | None = None

    @property
    def verdicts(self) -> tuple[bool, bool | None]:
        """The pair of ``correct`` and ``as_asked``, as ``Outcome.verdicts``."""
        return self.correct, self.as_asked


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledExample:
    """An example with its rows that are replayed.

    Attributes:
        example: The example.
        labels: The labels of the example's rows.
    """

    example: Example
    labels: list[ReplayedLabel]


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """The rows to replay, the model that replays them, and its settings.

    Attributes:
        examples: The examples with the rows that were drawn.
        rows: Rows of the run.
        source: The base model.
        dtype: The run's precision.
        task: The task's name.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        prompting: The settings of the run's prompts.
    """

    examples: list[LabelledExample]
    rows: int
    source: ModelSource
    dtype: str
    task: str
    max_new_tokens: int | None
    task_options: TaskOptions
    prompting: Prompting

    @property
    def num_labels(self) -> int:
        """Number of rows that are replayed."""
        return sum(len(item.labels) for item in self.examples)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A row whose label the replay does not confirm.

    Attributes:
        example_id: Id of the example.
        program: The program.
        correct: Whether the row says that the answer is right; the replay says the opposite.
        as_asked: Whether only the result of the first rendering differs, in a run with several renderings.
        margin: The row's margin.
        replayed_margin: The replay's margin.
        reason: Why the replay's answer is right or wrong.
        same_answer: Whether the replay wrote the row's answer, so that today's scoring alone differs.
    """

    example_id: str
    program: LayerProgram
    correct: bool
    as_asked: bool = False
    margin: float
    replayed_margin: float
    reason: Reason
    same_answer: bool


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of a replay.

    Attributes:
        rows: Rows of the run.
        replayed: Rows that were replayed.
        differences: The replayed rows whose label differs.
        dtype: The run's precision.
    """

    rows: int
    replayed: int
    differences: list[Difference]
    dtype: str

    @property
    def rescored(self) -> Counter[Reason]:
        """The labels that today's scoring alone changes, by the reason of the new label."""
        return Counter(one.reason for one in self.differences if one.same_answer)

    @property
    def differing_share(self) -> float:
        """Share of the replayed rows that differ."""
        return len(self.differences) / self.replayed if self.replayed else 0.0


class ReplayActor(TaskActor):
    """The Ray actor that replays programs."""

    def work(self, items: list[LabelledExample]) -> list[list[Outcome]]:
        """The outcome of each program of each example."""
        from pipeline.engine.stock_runner import StockRunner

        self._begin()
        oracle, outcomes = StockRunner(self._model), []
        for item in items:
            prepared = self._task.prepare(item.example, self._model.tokenizer)

            def scored(label: ReplayedLabel, *, need_response: bool, prepared: PreparedExample = prepared) -> Outcome:
                return self._task.score(oracle, [prepared], [label.program], need_response=need_response)[0]

            of_example = [scored(label, need_response=False) for label in item.labels]
            # Where a label differs, the whole answer says whether the model or the scoring does.
            outcomes.append(
                [
                    outcome if outcome.verdicts == label.verdicts else scored(label, need_response=True)
                    for label, outcome in zip(item.labels, of_example)
                ]
            )
        return outcomes


def verify(
    request: VerifyRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Verification:
    """Replay a run's rows.

    Args:
        request: The run, and the rows to replay.
        announce: Called with a message to the user.
        show: Called with the name of the step, the number of rows that are replayed, and their total.

    Raises:
        UserError: The folder is no run, its examples cannot be read again, or its model cannot be found.
    """
    plan = prepare(request)
    differences: list[Difference] = []
    solutions = get_task(plan.task, options=plan.task_options).writes_solutions
    with joined_cluster(request.resources, plan.source) as placement:
        placement = replace(placement, dtype=plan.dtype)
        announce(
            f"Replaying {plan.num_labels} of {plan.rows} rows of {len(plan.examples)} examples, each alone; "
            f"{placement.describe()}."
        )
        done = 0
        for item, outcomes in replay(plan, placement):
            pairs = zip(item.labels, outcomes, strict=True)
            found = [compare(item.example.id, label, outcome, solutions=solutions) for label, outcome in pairs]
            differences += [difference for difference in found if difference is not None]
            done += len(found)
            show("rows replayed", done, plan.num_labels)
    differences.sort(key=lambda one: (one.example_id, one.program.layers))
    return Verification(rows=plan.rows, replayed=plan.num_labels, differences=differences, dtype=plan.dtype)


def prepare(request: VerifyRequest) -> ReplayPlan:
    """Read the run, draw its rows, and find its examples and its model.

    Raises:
        UserError: The rows, the examples or the model cannot be found, or do not belong together.
    """
    settings, rows = read_settings(request.run), read_paths(request.run)
    if rows.empty:
        raise UserError(f"nothing is committed in {request.run} yet: there is nothing to replay")
    try:
        examples = {example.id: example for example in examples_of(request.run, data=request.questions)}
    except UserError as error:
        raise UserError(
            f"the examples of {request.run} cannot be read again ({error}) and replayed; if they lie elsewhere "
            "now, say where with --questions"
        ) from None
    drawn = rows[list(map(request.draws, rows.example_id, rows.program))]
    if drawn.empty:
        raise UserError(f"--fraction {request.fraction:g} draws none of the {len(rows)} rows; give more")
    dtype, name, revision, task = (
        _setting(settings, key, request.run) for key in ("dtype", "model.name", "model.revision", "task")
    )
    if request.resources.dtype not in ("auto", dtype):
        raise UserError(f"--dtype {request.resources.dtype}, but the run was searched in {dtype}; leave it out")
    notes = read_json(request.run / "run.json")
    source = resolve_model(request.base or where_it_is(name, notes.get("model_path")))
    if source.revision != revision:
        raise UserError(
            f"{source.name!r} is not the model that was searched: its revision is {source.revision[:19]}…, the run has "
            f"{revision[:19]}…; give the path of that one with --base"
        )
    return ReplayPlan(
        examples=_by_example(drawn, examples, request.run),
        rows=len(rows),
        source=source,
        dtype=dtype,
        task=task,
        max_new_tokens=settings.get("max_new_tokens"),
        task_options=options_of(settings),
        prompting=prompting_of(request.run),
    )


def replay(plan: ReplayPlan, placement: Placement) -> Iterator[tuple[LabelledExample, list[Outcome]]]:
    """Each example with the outcomes of its programs under stock models, as they come.

    Raises:
        UserError: The model cannot be loaded, or actors die.
    """
    starts = range(0, len(plan.examples), EXAMPLES_AT_ONCE)
    batches = [plan.examples[start : start + EXAMPLES_AT_ONCE] for start in starts]
    cpus = placement.pool.cpus_per_actor
    task = (plan.task, plan.max_new_tokens, plan.task_options, plan.prompting)
    arguments = (plan.source, placement.device, plan.dtype, cpus, *task)
    actors: ActorPool[list[LabelledExample]] = ActorPool(ReplayActor, arguments, placement.pool)
    with actors:
        for items, outcomes in actors.map(batches):
            yield from zip(items, outcomes, strict=True)


def compare(example_id: str, label: ReplayedLabel, outcome: Outcome, *, solutions: bool = False) -> Difference | None:
    """The difference between a row's label and the replay; None if the replay confirms the label.

    Args:
        example_id: Id of the example.
        label: The row's label.
        outcome: The replay's outcome.
        solutions: Whether answers are written solutions, which another scoring may have ended sooner or later.
    """
    if outcome.verdicts == label.verdicts:
        return None
    only_as_asked = outcome.correct == label.correct
    return Difference(
        example_id=example_id,
        program=label.program,
        correct=bool(label.as_asked if only_as_asked else label.correct),
        as_asked=only_as_asked,
        margin=label.margin,
        replayed_margin=outcome.margin,
        reason=outcome.reason,
        same_answer=_same_answer(label.response, outcome.response, solutions=solutions),
    )


def _same_answer(kept: str | None, replayed: str | None, *, solutions: bool) -> bool:
    """Whether two answers are one text, or one solution the beginning of the other."""
    if not kept or not replayed:
        return False
    if not solutions:
        return kept == replayed
    return kept.startswith(replayed) or replayed.startswith(kept)


def _setting(settings: dict[str, Any], key: str, run: AnyPath) -> str:
    value = settings.get(key)
    if not isinstance(value, str):
        raise UserError(f"{run / 'run.json'} holds no {key!r}, which a replay needs")
    return value


def _by_example(rows: pd.DataFrame, examples: dict[str, Example], run: AnyPath) -> list[LabelledExample]:
    """Each example with its rows' labels, in the order of the rows."""
    found: dict[str, LabelledExample] = {}
    for row in rows.to_dict("records"):
        example_id, as_asked = row["example_id"], row.get("correct_as_asked")
        if example_id not in examples:
            raise UserError(f"{run} has rows of example {example_id!r}, which is not one of its examples")
        # The row's own prompt: the template may have changed since, or writes the date.
        example = replace(examples[example_id], prompt=row["prompt"])
        item = found.setdefault(example_id, LabelledExample(example=example, labels=[]))
        item.labels.append(
            ReplayedLabel(
                program=LayerProgram(map(int, row["program"]), int(row["num_layers"])),
                correct=bool(row["correct"]),
                as_asked=None if as_asked is None else bool(as_asked),
                margin=float(row["score"]),
                response=row["response"],
            )
        )
    return list(found.values())

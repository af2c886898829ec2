"""Replaying a run: are its labels what stock transformers models of its programs say?

The kept programs are run once more by ``pipeline.engine.stock_runner``, each question alone, with nothing that the
search had computed; the task judges what comes out by its own rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import find_placement
from pipeline.distributed.model_actor import TaskActor
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_paths, read_settings
from pipeline.shards.source_examples import questions_of
from pipeline.storage import AnyPath
from pipeline.tasks import Example, Outcome
from pipeline.workflows.verify_request import VerifyRequest

if TYPE_CHECKING:
    import pandas as pd

#: Questions that an actor is handed at once, each with its programs.
PIECE = 4
Piece = list[tuple[Example, list[LayerProgram]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A row whose label the oracle does not confirm.

    Attributes:
        example_id: The question.
        program: The program.
        correct: The row's verdict; the oracle's is the other one.
        as_asked: Whether it is the verdict on the question as it stands, of a run that asks each in several ways.
        margin: The row's margin.
        replayed_margin: The oracle's.
    """

    example_id: str
    program: LayerProgram
    correct: bool
    as_asked: bool = False
    margin: float
    replayed_margin: float


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a replay found.

    Attributes:
        rows: Rows of the run.
        replayed: Rows that were replayed.
        differences: Those whose label differs.
        dtype: The run's precision.
    """

    rows: int
    replayed: int
    differences: list[Difference]
    dtype: str

    @property
    def share(self) -> float:
        """Share of the replayed rows that differ."""
        return len(self.differences) / self.replayed if self.replayed else 0.0


class ReplayActor(TaskActor):
    """The Ray actor that replays programs."""

    def work(self, piece: Piece) -> list[list[Outcome]]:
        """For each question what each of its programs makes of it."""
        from pipeline.engine.stock_runner import StockRunner

        self._begin()
        oracle, found = StockRunner(self._model), []
        for example, programs in piece:
            question = self._task.prepare(example, self._model.tokenizer)
            found.append(
                [self._task.score(oracle, [question], [program], need_response=False)[0] for program in programs]
            )
        return found


def verify(
    request: VerifyRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Verification:
    """Replay a run's rows.

    Args:
        request: What to do.
        announce: Told, in a line each, what is about to happen.
        show: Told what is being done, how much of it is done, of how much.

    Raises:
        UserError: The folder is no run, its questions cannot be read again, or its model is not there.
    """
    import ray

    settings, rows = read_settings(request.run), read_paths(request.run)
    if rows.empty:
        raise UserError(f"nothing is committed in {request.run} yet: there is nothing to replay")
    try:
        examples = {example.id: example for example in questions_of(request.run)}
    except UserError as error:
        raise UserError(f"the questions of {request.run} cannot be read again ({error}) and replayed") from None
    chosen = rows[list(map(request.draws, rows.example_id, rows.program))]
    if chosen.empty:
        raise UserError(f"--fraction {request.fraction:g} draws none of the {len(rows)} rows; give more")
    dtype, name, revision, task = (
        _said(settings, key, request.run) for key in ("dtype", "model.name", "model.revision", "task")
    )
    if request.resources.dtype not in ("auto", dtype):
        raise UserError(f"--dtype {request.resources.dtype}, but the run was searched in {dtype}; leave it out")
    source = resolve_model(request.base or name)
    if source.revision != revision:
        raise UserError(
            f"{source.name!r} is not the model that was searched: its revision is {source.revision[:19]}…, the run has "
            f"{revision[:19]}…; say where that one lies with --base"
        )
    work = _by_question(chosen, examples, request.run)
    pieces = [work[start : start + PIECE] for start in range(0, len(work), PIECE)]
    differences: list[Difference] = []
    done = 0
    try:
        place = find_placement(request.resources)
        announce(
            f"Replaying {len(chosen)} of {len(rows)} rows of {len(work)} questions, each alone; "
            f"up to {place.pool.num_actors} actors on {place.device} in {dtype}."
        )
        actors: ActorPool[Piece] = ActorPool(
            ReplayActor,
            (
                source,
                place.device,
                dtype,
                place.pool.cpus_per_actor,
                task,
                settings.get("max_new_tokens"),
            ),
            place.pool,
        )
        as_asked = chosen.correct_as_asked if "correct_as_asked" in chosen else [None] * len(chosen)
        said = {
            (example_id, tuple(program)): (correct, asked, float(margin))
            for example_id, program, correct, asked, margin in zip(
                chosen.example_id, chosen.program, chosen.correct, as_asked, chosen.score
            )
        }
        with actors:
            for piece, answers in actors.map(pieces):
                for (example, programs), replayed in zip(piece, answers, strict=True):
                    for program, outcome in zip(programs, replayed, strict=True):
                        correct, asked, margin = said[example.id, program.layers]
                        if outcome.verdicts != (correct, asked):
                            confirmed = outcome.correct == correct  # so it is the other verdict that differs
                            differences.append(
                                Difference(
                                    example_id=example.id,
                                    program=program,
                                    correct=bool(asked if confirmed else correct),
                                    as_asked=confirmed,
                                    margin=margin,
                                    replayed_margin=outcome.margin,
                                )
                            )
                    done += len(programs)
                show("rows replayed", done, len(chosen))
    finally:
        ray.shutdown()
    differences.sort(key=lambda one: (one.example_id, one.program.layers))
    return Verification(rows=len(rows), replayed=len(chosen), differences=differences, dtype=dtype)


def _said(settings: dict[str, Any], key: str, run: AnyPath) -> str:
    value = settings.get(key)
    if not isinstance(value, str):
        raise UserError(f"{run / 'run.json'} does not say {key!r}, without which nothing can be replayed")
    return value


def _by_question(rows: pd.DataFrame, examples: dict[str, Example], run: AnyPath) -> Piece:
    """Each question with its rows' programs, in the order of the rows."""
    work: dict[str, tuple[Example, list[LayerProgram]]] = {}
    for example_id, program, depth in zip(rows.example_id, rows.program, rows.num_layers):
        if example_id not in examples:
            raise UserError(f"{run} has rows of question {example_id!r}, which is none of its questions")
        item = work.setdefault(example_id, (examples[example_id], []))
        item[1].append(LayerProgram(map(int, program), int(depth)))
    return list(work.values())

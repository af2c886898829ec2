"""The driver's side of a search: work groups, a pool of actors, retries and commits.

A group is handed to an actor that has loaded its model; its rows come back and are committed. An actor
that dies, that does nothing any more, or that fails at whatever it is given, is replaced, and its group is handed to
another one, on another machine where there is one (``work_queue`` says what, and how often). Calibration groups
go first; once all of them are done, what they teach is fitted and goes out with every other group. At the end whoever
has nothing to do tries what others have had for long; the first result counts. Nothing here decides what a row says.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from pipeline.distributed.cluster import PoolConfig, fitting_actors
from pipeline.distributed.evaluator import GroupResult, Loaded, SearchEvaluator
from pipeline.distributed.work_queue import Piece, Settled, WorkQueue
from pipeline.errors import StoppedError, UserError
from pipeline.prior import Prior, fit_prior
from pipeline.shards.calibration import calibration_groups
from pipeline.shards.progress import Progress
from pipeline.shards.reader import ShardRecord
from pipeline.shards.run_config import DEFAULT_STALL_SECONDS, RunConfig
from pipeline.shards.run_folder import RunFolder
from pipeline.tasks import Example

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
#: Actors that may die while loading, one after the other, before the run gives up.
MAX_FAILED_STARTS = 3
#: Actors that may die one after the other over groups that nobody had lost before, or over any if this call has not
#: finished a single one, before the run gives up: not the examples are bad then, but the cluster.
MAX_DEATHS_IN_A_ROW = 50
#: Exceptions one after the other that make an actor a broken one: after some errors a GPU answers nothing any more.
MAX_EXCEPTIONS_IN_A_ROW = 3
#: Seconds until an actor is replaced, after the first and after any number of deaths in a row.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 10.0
#: How long a piece must have been under way before another actor tries it too: in median times, and in seconds.
OVERDUE, OVERDUE_SECONDS = 1.5, 5.0
_PACES = 64
#: How often a cluster is asked whether it has grown.
GROWTH_SECONDS = 5.0


@dataclass(kw_only=True, eq=False)
class _SearchActor:
    """One actor and the one call that is under way on it; it loads where there is no piece."""

    actor: ActorHandle[SearchEvaluator]
    call: Any
    piece: Piece | None = None
    loaded: bool = False
    #: The machine that it is on, once that is known.
    node: str | None = None
    exceptions_in_a_row: int = 0
    programs_run: int = 0
    programs_replayed: int = 0
    #: When it began to load or was given its piece, and when it was last seen to run or replay a program of that.
    began: float = field(default_factory=time.monotonic)
    moved: float = 0.0


class Coordinator:
    """Runs the work groups of a search that are not committed yet.

    Args:
        config: The run's settings.
        pool: How many actors, and on what.
        examples: Every example of the run, in order.
        folder: Where rows are committed; opened already.
        committed: The groups that are committed already.
        show: Told of the progress about twice a second.
        stall_seconds: An actor that runs no program for so long is taken for stuck, and replaced.
        evaluator: What the actors are; another class than the default stands in for it where the
            coordinator itself is looked at (``benchmarks/coordination.py``).
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        pool: PoolConfig,
        examples: Sequence[Example],
        folder: RunFolder,
        committed: dict[int, ShardRecord],
        show: Callable[[Progress], None] = lambda progress: None,
        stall_seconds: float = DEFAULT_STALL_SECONDS,
        evaluator: type[SearchEvaluator] = SearchEvaluator,
    ) -> None:
        self._config = config
        self._pool = pool
        self._folder = folder
        self._show = show
        size = config.group_size
        self._groups = [examples[start : start + size] for start in range(0, len(examples), size)]
        open_groups = [group for group in range(len(self._groups)) if group not in committed]
        self._work: WorkQueue[GroupResult] = WorkQueue({group: len(self._groups[group]) for group in open_groups})
        self._calibration = calibration_groups(config.calibration, size)
        #: Calibration groups that the others wait for.
        self._teaching = set(open_groups) & set(self._calibration) if folder.prior() is None else set()
        self._prior: ray.ObjectRef[Prior] | None = None
        self._stall_seconds = stall_seconds
        #: Seconds an example that the last finished pieces took.
        self._paces: deque[float] = deque(maxlen=_PACES)
        self._failed_starts = 0
        self._deaths_in_a_row = self._fresh_deaths_in_a_row = 0
        self._any_finished = False
        self._next_start = 0.0
        self._num_actors, self._next_growth = pool.num_actors, 0.0
        self._actor_class = ray.remote(
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor,
            # The coordinator owns retries: an actor that Ray restarted would come back without its model.
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"progress": 1},
        )(evaluator)
        self._workers: list[_SearchActor] = []
        self._polls: dict[Any, _SearchActor] = {}
        self._next_poll = 0.0
        self.progress = Progress(
            num_examples=len(examples),
            programs_an_example=config.search.simulations + 1,
        )
        for record in committed.values():
            self.progress.add(record)
        self.progress.resumed_examples = self.progress.done

    def run(self) -> Progress:
        """Work until every group is committed or set aside; actors are gone when this returns.

        Raises:
            UserError: The model cannot be loaded.
            StoppedError: Actors die one after the other, or a calibration group cannot be searched.
        """
        try:
            self._learn_if_taught()
            while not self._work.settled:
                self._fill_pool()
                calls = {worker.call: worker for worker in self._workers if worker.call is not None}
                if calls:
                    ray.wait(list(calls), num_returns=1, timeout=TICK_SECONDS)
                else:
                    time.sleep(TICK_SECONDS)  # until the next actor may start
                for call in _answered(calls):
                    self._finish(calls[call])
                self._poll_activity()
                self._replace_stuck()
                self._show(self.progress)
        finally:
            for worker in list(self._workers):
                self._let_go(worker)
        return self.progress

    # -- handing out -----------------------------------------------------------------------

    def _fill_pool(self) -> None:
        """Hand pieces to idle actors, start as many actors as there is work for, and let go of those too many."""
        for worker in self._idle():
            piece = self._work.take(self._may_start, partial(self._avoids, worker)) or self._work.copy(self._is_overdue)
            if piece is None:
                continue
            worker.piece = piece
            worker.began = worker.moved = time.monotonic()
            teaches = piece.group in self._calibration
            examples = [self._groups[piece.group][place] for place in piece.places]
            worker.call = worker.actor.search.remote(examples, None if teaches else self._prior, teaches)
        self._grow()
        wanted = min(self._num_actors, self._work.most_wanted)
        # Those that still wait for room on the cluster would keep it growing.
        spare = [*self._idle(), *(worker for worker in self._workers if not worker.loaded)]
        for worker in spare[: max(0, len(self._workers) - wanted)]:
            self._let_go(worker)
            self.progress.actors_ready -= worker.loaded
        busy = sum(worker.piece is not None for worker in self._workers)
        if time.monotonic() >= self._next_start and not self._awaits_a_first_load():
            while len(self._workers) < min(self._num_actors, busy + len(self._work)):
                self._workers.append(self._start_worker())

    def _idle(self) -> list[_SearchActor]:
        return [worker for worker in self._workers if worker.call is None]

    def _avoids(self, worker: _SearchActor, loser: _SearchActor) -> bool:
        """Whether what somebody lost is rather for another actor: on another machine, or at least not the same one."""
        others = [other for other in self._workers if other is not worker]
        if worker.node == loser.node and any(other.node != loser.node for other in others):
            return True
        return worker is loser and bool(others)

    def _may_start(self, group: int) -> bool:
        return group in self._calibration or not self._teaching

    def _is_overdue(self, piece: Piece) -> bool:
        """Whether a piece takes much longer than others did."""
        if not self._paces:
            return False
        took = time.monotonic() - min(worker.began for worker in self._workers if worker.piece == piece)
        return took > max(OVERDUE_SECONDS, OVERDUE * median(self._paces) * len(piece))

    def _grow(self) -> None:
        """Use nodes that came later, unless a number of actors was asked for."""
        if self._pool.elastic and time.monotonic() >= self._next_growth:
            self._next_growth = time.monotonic() + GROWTH_SECONDS
            self._num_actors = max(self._num_actors, fitting_actors(self._pool))

    def _start_worker(self) -> _SearchActor:
        actor = self._actor_class.remote(self._config)
        return _SearchActor(actor=actor, call=actor.load.remote())

    def _awaits_a_first_load(self) -> bool:
        """Whether so many actors failed to start that only those that still load can say whether any will.

        A node that lacks the model fails at once, again and again, while others take minutes to load it.
        """
        return self._failed_starts >= MAX_FAILED_STARTS and not self.progress.actors_ready and self._any_loads()

    def _any_loads(self) -> bool:
        """Whether any actor may yet load the model; one that takes as long as a stuck one is not waited for."""
        latest = time.monotonic() - self._stall_seconds
        return any(not worker.loaded and worker.began > latest for worker in self._workers)

    def _let_go(self, worker: _SearchActor) -> None:
        self._workers.remove(worker)
        with suppress(RayError, RuntimeError):
            ray.kill(worker.actor)

    # -- taking back -----------------------------------------------------------------------

    def _finish(self, worker: _SearchActor) -> None:
        """Take the result of a worker's call."""
        call, worker.call = worker.call, None
        piece, worker.piece = worker.piece, None
        try:
            result = ray.get(call)
        except RayError as error:
            # An exception of its own leaves an actor alive; all else is its end, or that of its node with the answer.
            alive = isinstance(error, RayTaskError)
            cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
            if piece is None:
                self._start_failed(worker, cause)
                return
            worker.exceptions_in_a_row += 1
            if not alive or worker.exceptions_in_a_row >= MAX_EXCEPTIONS_IN_A_ROW:
                self._bury(worker, cause, over=piece)
            self._take_back(worker, piece, cause)
        else:
            if piece is None:
                self._welcome(worker, result)
                return
            worker.exceptions_in_a_row = self._deaths_in_a_row = self._fresh_deaths_in_a_row = 0
            self._any_finished = True
            if self._work.is_open(piece):
                self._paces.append((time.monotonic() - worker.began) / len(piece))
            self._settle(self._work.finish(piece, result))

    def _welcome(self, worker: _SearchActor, loaded: Loaded) -> None:
        """Take up an actor that has loaded the model."""
        self._failed_starts = 0
        worker.loaded, worker.node = True, loaded.node
        self.progress.actors_ready += 1
        self._folder.describe_model(loaded.facts)
        self._check_prior(loaded.facts["num_layers"])

    def _bury(self, worker: _SearchActor, error: Exception, *, over: Piece | None = None) -> None:
        """Let an actor go that died, is stuck or broken; the next one starts after a pause that grows with the deaths.

        Args:
            worker: It.
            error: Its end.
            over: What it had, if it had loaded the model.
        """
        self._let_go(worker)
        self.progress.actors_lost += 1
        self.progress.actors_ready -= worker.loaded
        logger.warning("an actor died and is replaced: %s", _one_line(error))
        if not _is_preempted(error):
            self._deaths_in_a_row += worker.loaded
            self._fresh_deaths_in_a_row += over is not None and self._work.is_fresh(over)
            deaths = min(self._failed_starts + self._deaths_in_a_row, 16)
            self._next_start = time.monotonic() + min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**deaths)

    def _start_failed(self, worker: _SearchActor, error: Exception) -> None:
        """An actor died, or was refused something, while it loaded the model: here, or on its node alone.

        While any actor works, or may yet, those that fail to start cost time and nothing else.
        """
        self._bury(worker, error)
        self._failed_starts += not _is_preempted(error)
        if self.progress.actors_ready or self._any_loads():
            return
        if isinstance(error, UserError):
            raise UserError(str(error)) from None
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise StoppedError(
                f"actors fail while they load the model ({_one_line(error)}); "
                "is there enough memory for one copy an actor? fewer --actors need less"
            ) from error

    def _take_back(self, worker: _SearchActor, piece: Piece, error: Exception) -> None:
        """Somebody failed at a piece: others try it."""
        if _is_preempted(error):
            self._work.give_back(piece)  # its machine was taken away, which is no fault of the examples'
            return
        self._settle(self._work.lose(piece, f"{type(error).__name__}: {_one_line(error)}", worker))
        deaths = self._fresh_deaths_in_a_row if self._any_finished else self._deaths_in_a_row
        if deaths >= MAX_DEATHS_IN_A_ROW:
            raise StoppedError(
                f"{deaths} actors died one after the other and none finished anything, the last one of: "
                f"{_one_line(error)}"
            ) from error

    def _replace_stuck(self) -> None:
        """Replace actors that have run no program for long: an example, or what grades it, hangs."""
        for worker in list(self._workers):
            if worker.piece is not None and time.monotonic() - worker.moved > self._stall_seconds:
                stuck = TimeoutError(
                    f"stuck: no program was finished for {self._stall_seconds:g} seconds (--stall-seconds)"
                )
                self._bury(worker, stuck, over=worker.piece)
                self._take_back(worker, worker.piece, stuck)

    def _settle(self, settled: Settled[GroupResult] | None) -> None:
        """Commit a group of which nothing is left to do, or set it aside where nothing of it could be searched."""
        if settled is None:
            return
        group, examples = settled.group, self._groups[settled.group]
        failed = {examples[place].id: reason for place, reason in sorted(settled.failed.items())}
        for example_id, reason in failed.items():
            logger.error("example %s is set aside: %s", example_id, reason)
        if settled.results:
            result = _joined(settled.results)
            lesson = result.evaluations if group in self._calibration else None
            self.progress.add(
                self._folder.commit(group, result.rows, {**result.failed, **failed}, lesson, result.improvements)
            )
        else:
            self._folder.set_aside(group, failed)
            self.progress.failed_examples += len(failed)
        if group in self._teaching:
            if not settled.results:
                # What it would have taught decides the rows of all other questions: they may not depend on an outage.
                raise StoppedError(
                    f"no question of calibration group {group} could be searched, the last one for: "
                    f"{list(failed.values())[-1]}; the same command tries them again, and a new run with "
                    "--calibration 0 does without"
                )
            # After the last one that teaches, the others may start.
            self._teaching.remove(group)
            self._learn_if_taught()

    # -- inside ----------------------------------------------------------------------------

    def _learn_if_taught(self) -> None:
        """Fit the prior once every calibration group is done. One that the folder holds already stays."""
        self.progress.calibrating = bool(self._teaching)
        if self._teaching:
            return
        prior = self._folder.prior()
        if prior is None:
            lessons = [record.group for record in self.progress.committed if record.group in self._calibration]
            compare_margins = self._config.search.margin_scale is not None
            prior = fit_prior(self._folder.evaluations(lessons), compare_margins=compare_margins)
            if prior is not None:
                self._folder.write_prior(prior)
        self._prior = None if prior is None else ray.put(prior)

    def _check_prior(self, num_layers: int) -> None:
        prior = self._folder.prior()
        if prior is not None and prior.num_layers != num_layers:
            raise UserError(
                f"the prior was learnt on a model of {prior.num_layers} layers, this one has {num_layers}; "
                f"delete {self._folder.root}, where nothing was searched, and give a prior of the same model or none"
            )

    def _poll_activity(self) -> None:
        """Ask actors now and then how many programs they have run, and whether they live; nothing waits for them."""
        for call in _answered(self._polls):
            worker = self._polls.pop(call)
            try:
                run, replayed = ray.get(call)
            except RayError as error:
                # Where it searches, that call fails too, and is dealt with there.
                if worker.call is None and worker in self._workers:
                    self._bury(worker, error)
                continue
            if (run, replayed) != (worker.programs_run, worker.programs_replayed):
                worker.moved = time.monotonic()
            self.progress.programs_run += run - worker.programs_run
            worker.programs_run, worker.programs_replayed = run, replayed
        if time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + TICK_SECONDS
            # Whoever has not answered yet is not asked again: one that hangs would be asked for ever.
            asked = {id(worker) for worker in self._polls.values()}
            others = [worker for worker in self._workers if worker.loaded and id(worker) not in asked]
            self._polls |= {worker.actor.activity.remote(): worker for worker in others}


def _answered(calls: dict[Any, _SearchActor]) -> list[Any]:
    """Those of the calls whose answers are there."""
    return ray.wait(list(calls), num_returns=len(calls), timeout=0)[0] if calls else []


def _joined(results: Iterable[GroupResult]) -> GroupResult:
    """What a group's pieces came to, as one."""
    joined = GroupResult(rows=[], failed={}, evaluations=[], improvements={})
    for result in results:
        joined.rows.extend(result.rows)
        joined.failed.update(result.failed)
        joined.evaluations.extend(result.evaluations)
        joined.improvements.update(result.improvements)
    return joined


def _is_preempted(error: Exception) -> bool:
    """Whether an actor's machine was taken away, as its drain notice had said."""
    return bool(getattr(error, "preempted", False))


def _one_line(error: Exception) -> str:
    """An error's text without its line breaks; Ray's say the cause only after the first."""
    return " ".join(str(error).split())[:500] or type(error).__name__

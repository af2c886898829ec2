"""The driver's side of a search: work groups, a pool of actors, retries and commits.

A group is handed to an actor that has loaded its model; its rows come back and are committed. An actor
that dies is replaced and its group is handed out again. Calibration groups go first; once all of them are
done, what they teach is fitted and goes out with every other group. Nothing here decides what a row says.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from pipeline.calibration import calibration_groups
from pipeline.cluster import PoolConfig
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.evaluator import SearchEvaluator
from pipeline.prior import Prior, fit_prior
from pipeline.shards import RunFolder, ShardRecord
from pipeline.tasks import Example

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
#: Times that a group is handed out before its examples are set aside.
MAX_ATTEMPTS = 3
#: Actors that may die while loading, one after the other, before the run gives up.
MAX_FAILED_STARTS = 3


@dataclass(kw_only=True)
class Progress:
    """How far a run is. The coordinator keeps it; whoever shows it only reads.

    Sums are kept as records come in: a run has thousands, and is looked at twice a second.

    Attributes:
        num_examples: Examples of the whole run.
        programs_an_example: Most programs that a search runs, the identity included.
        committed: What is committed, by this call and earlier ones; ``add`` takes a further record.
        done: Examples committed, by this call and earlier ones.
        resumed_examples: Of those, examples that were committed before this call.
        baseline_correct: Questions that the untouched model gets right.
        shorter: Questions that the model gets right, and a strictly shorter program too.
        corrected: Questions that the model gets wrong and a program right.
        failed_examples: Examples set aside, by this call and earlier ones.
        programs_run: Programs run by this call's actors.
        actors_ready: Actors that have loaded the model.
        actors_lost: Actors that died.
        calibrating: Calibration groups are still at work, and the others wait for what they teach.
        started: When the coordinator began, on the monotonic clock.
    """

    num_examples: int
    programs_an_example: int
    committed: list[ShardRecord] = field(default_factory=list, init=False)
    done: int = field(default=0, init=False)
    resumed_examples: int = 0
    baseline_correct: int = field(default=0, init=False)
    shorter: int = field(default=0, init=False)
    corrected: int = field(default=0, init=False)
    failed_examples: int = field(default=0, init=False)
    programs_run: int = 0
    actors_ready: int = 0
    actors_lost: int = 0
    calibrating: bool = False
    started: float = field(default_factory=time.monotonic)

    def add(self, record: ShardRecord) -> None:
        """Count a committed work group."""
        self.committed.append(record)
        self.done += len(record.example_ids)
        self.baseline_correct += record.baseline_correct
        self.shorter += record.shorter
        self.corrected += record.corrected
        self.failed_examples += len(record.failed)

    @property
    def seconds(self) -> float:
        """Since the coordinator began."""
        return time.monotonic() - self.started

    @property
    def complete(self) -> bool:
        """Every example is committed."""
        return self.done == self.num_examples


@dataclass(kw_only=True)
class _Worker:
    """One actor and the one call that is under way on it."""

    actor: ActorHandle[SearchEvaluator]
    call: Any
    group: int | None = None
    programs_run: int = 0


class Coordinator:
    """Runs the work groups of a search that are not committed yet.

    Args:
        config: The run's settings.
        pool: How many actors, and on what.
        examples: Every example of the run, in order.
        folder: Where rows are committed; opened already.
        committed: The groups that are committed already.
        show: Told of the progress about twice a second.
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
        evaluator: type[SearchEvaluator] = SearchEvaluator,
    ) -> None:
        self._config = config
        self._pool = pool
        self._folder = folder
        self._show = show
        size = config.group_size
        self._groups = [examples[start : start + size] for start in range(0, len(examples), size)]
        self._todo = deque(group for group in range(len(self._groups)) if group not in committed)
        self._calibration = calibration_groups(config.calibration, size)
        #: Calibration groups that the others wait for.
        self._teaching = set(self._todo) & set(self._calibration) if folder.prior() is None else set()
        self._prior: ray.ObjectRef[Prior] | None = None
        self._attempts: dict[int, int] = {}
        self._failed_starts = 0
        self._actor_class = ray.remote(
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor,
            # The coordinator owns retries: an actor that Ray restarted would come back without its model.
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"progress": 1},
        )(evaluator)
        self._workers: list[_Worker] = []
        self._polls: dict[Any, _Worker] = {}
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
            UserError: The model cannot be loaded, or actors die while loading it.
        """
        try:
            self._learn_if_taught()
            while self._todo or any(worker.group is not None for worker in self._workers):
                self._fill_pool()
                calls = {worker.call: worker for worker in self._workers if worker.call is not None}
                ray.wait(list(calls), num_returns=1, timeout=TICK_SECONDS)
                for call in _answered(calls):
                    self._finish(calls[call])
                self._poll_programs_run()
                self._show(self.progress)
        finally:
            for worker in self._workers:
                ray.kill(worker.actor)
            self._workers.clear()
        return self.progress

    # -- inside ----------------------------------------------------------------------------

    def _fill_pool(self) -> None:
        """Hand groups to idle actors, and start as many actors as there is work for."""
        for worker in self._workers:
            if worker.call is None and self._todo and self._may_start(self._todo[0]):
                worker.group = self._todo.popleft()
                teaches = worker.group in self._calibration
                prior = None if teaches else self._prior
                worker.call = worker.actor.search.remote(self._groups[worker.group], prior, teaches)
        busy = sum(worker.group is not None for worker in self._workers)
        while len(self._workers) < min(self._pool.num_actors, busy + len(self._todo)):
            self._workers.append(self._start_worker())

    def _may_start(self, group: int) -> bool:
        return group in self._calibration or not self._teaching

    def _start_worker(self) -> _Worker:
        actor = self._actor_class.remote(self._config)
        return _Worker(actor=actor, call=actor.load.remote())

    def _finish(self, worker: _Worker) -> None:
        """Take the result of a worker's call."""
        call, worker.call = worker.call, None
        group, worker.group = worker.group, None
        try:
            result = ray.get(call)
        except RayTaskError as error:
            self._take_back(group, error.cause if isinstance(error.cause, Exception) else error)
        except RayError as error:
            # It died, or what it answered is lost with its node; either way another one takes its place.
            self._workers.remove(worker)
            ray.kill(worker.actor)
            self.progress.actors_lost += 1
            self.progress.actors_ready -= group is not None
            logger.warning("an actor died and is replaced: %s", _one_line(error))
            self._take_back(group, error)
        else:
            if group is None:
                self._failed_starts = 0
                self.progress.actors_ready += 1
                self._folder.describe_model(result)
                self._check_prior(result["num_layers"])
            else:
                lesson = result.evaluations if group in self._calibration else None
                self.progress.add(self._folder.commit(group, result.rows, result.failed, lesson, result.improvements))
                self._count_off(group)

    def _take_back(self, group: int | None, error: Exception) -> None:
        """Queue a failed group again, or set its examples aside once it has failed too often."""
        preempted = bool(getattr(error, "preempted", False))
        if group is None:
            if isinstance(error, UserError):
                raise UserError(str(error)) from None
            self._failed_starts += not preempted
            # While any actor works, those that fail to start cost time and nothing else.
            if not isinstance(error, RayError) or (
                self._failed_starts >= MAX_FAILED_STARTS and self.progress.actors_ready == 0
            ):
                raise UserError(
                    f"actors fail while they load the model ({_one_line(error)}); "
                    "is there enough memory for one copy an actor? fewer --actors need less"
                ) from error
            return
        if preempted:
            self._todo.appendleft(group)  # its machine was taken away, which is no fault of the group's
            return
        self._attempts[group] = self._attempts.get(group, 0) + 1
        if self._attempts[group] < MAX_ATTEMPTS:
            self._todo.appendleft(group)
            return
        reason = f"{type(error).__name__}: {_one_line(error)}"
        self._folder.set_aside(group, {example.id: reason for example in self._groups[group]})
        self.progress.failed_examples += len(self._groups[group])
        logger.error("group %d failed %d times and is set aside: %s", group, MAX_ATTEMPTS, reason)
        self._count_off(group)

    def _count_off(self, group: int) -> None:
        """A group is done; after the last one that teaches, the others may start."""
        if group in self._teaching:
            self._teaching.remove(group)
            self._learn_if_taught()

    def _learn_if_taught(self) -> None:
        """Fit the prior once every calibration group is done. One that the folder holds already stays.

        A group that was set aside teaches nothing, nor does it where a later call searches it after all.
        """
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

    def _poll_programs_run(self) -> None:
        """Ask busy actors now and then how many programs they have run; nothing waits for the answers."""
        for call in _answered(self._polls):
            worker = self._polls.pop(call)
            try:
                count = ray.get(call)
            except RayError:
                continue  # its search call fails too, and that is where it is dealt with
            self.progress.programs_run += count - worker.programs_run
            worker.programs_run = count
        if not self._polls and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + TICK_SECONDS
            busy = [worker for worker in self._workers if worker.group is not None]
            self._polls = {worker.actor.programs_run.remote(): worker for worker in busy}


def _answered(calls: dict[Any, _Worker]) -> list[Any]:
    """Those of the calls whose answers are there."""
    return ray.wait(list(calls), num_returns=len(calls), timeout=0)[0] if calls else []


def _one_line(error: Exception) -> str:
    """An error's text without its line breaks; Ray's say the cause only after the first."""
    return " ".join(str(error).split())[:500] or type(error).__name__

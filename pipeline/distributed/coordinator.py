"""The driver's side of a search: work groups, actors, retries and commits.

A group is handed to an actor that has loaded the model; its rows come back and are committed. Three parts decide, each
without Ray: ``work_queue`` which chunk is handed out next, ``failure_policy`` what follows from a failure, and the
run's settings what the rows say. Calibration groups go first; once all of them are committed the prior is fitted, and
goes out with every other group. At the end idle actors copy chunks that take long, and the first result counts.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from statistics import median
from typing import Any

from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.evaluator import GroupResult, Loaded, SearchEvaluator
from pipeline.distributed.failure_policy import (
    MAX_DEATHS_IN_A_ROW,
    ActorLoaded,
    ChunkFailed,
    ChunkFinished,
    Decision,
    FailureKind,
    FailurePolicy,
    IdleActorFailed,
    LoadFailed,
    StopReason,
)
from pipeline.distributed.installation import check_same_source, installation
from pipeline.distributed.ray_errors import one_line, with_cure
from pipeline.distributed.search_actors import CallFailure, RaySearchActors, SearchActors
from pipeline.distributed.work_queue import Chunk, FinalizedGroup, Worker, WorkQueue
from pipeline.errors import StoppedError, UserError
from pipeline.prior import fit_prior
from pipeline.search.action_spaces import check_action_space
from pipeline.shards.calibration import calibration_groups
from pipeline.shards.group_ranges import group_ranges
from pipeline.shards.progress import Progress
from pipeline.shards.reader import ShardRecord
from pipeline.shards.run_config import DEFAULT_STALL_SECONDS, RunConfig
from pipeline.shards.run_folder import RunFolder
from pipeline.tasks import Example
from pipeline.tasks.base_answer import BaseAnswer

logger = logging.getLogger(__name__)

#: Seconds that the coordinator waits for an answer before it polls everything else.
TICK_SECONDS = 0.5
#: When a chunk is overdue: in median times of an example, and in seconds.
OVERDUE, OVERDUE_SECONDS = 1.5, 5.0
#: Finished chunks that the median is taken over.
_TIMED_CHUNKS = 64
#: Examples that the base model answers before the search begins, and where it writes its answers at length.
NUM_PREVIEWED, FEW_PREVIEWED = 32, 8
#: Seconds between two polls of the cluster's size.
GROWTH_SECONDS = 5.0


class ActorState(Enum):
    """The states of an actor."""

    LOADING = auto()
    PREVIEWING = auto()
    IDLE = auto()
    BUSY = auto()


@dataclass(kw_only=True, eq=False)
class _SearchActor:
    """An actor of the pool.

    Attributes:
        number: The actor's number; no other one ever has it.
        handle: The actor, for ``SearchActors``.
        began: When the actor began to load, to preview, or was given its chunk.
        call: The call in flight; None if the actor is idle.
        state: Whether the actor loads, has the base model answer the first examples, is idle or searches a chunk.
        chunk: The chunk that it is busy with.
        node: The machine that it is on, once it has loaded.
        programs_run: Programs that it had run when it was last polled.
        programs_replayed: Programs that it had replayed then.
        last_progress: When it was given its chunk, or was last seen to have run or replayed a program.
    """

    number: int
    handle: Any
    began: float
    call: Any
    state: ActorState = ActorState.LOADING
    chunk: Chunk | None = None
    node: str | None = None
    programs_run: int = 0
    programs_replayed: int = 0
    last_progress: float = 0.0

    @property
    def worker(self) -> Worker:
        """The actor, as the work queue knows it."""
        return Worker(self.number, self.node)


class Coordinator:
    """Runs the work groups of a search that are not committed yet.

    Args:
        config: The run's settings.
        pool: Number of actors, and their resources.
        examples: Every example of the run, in order.
        folder: The run folder to which rows are committed; opened already.
        committed: The groups that are committed already.
        show: Called with the progress about twice a second.
        preview: Called once with the base model's answers to the first examples, before the first actor searches;
            None for no preview. It is left out if that actor fails at it.
        num_previewed: The number of these examples.
        stall_seconds: An actor that runs no program for so long is replaced.
        evaluator: The actors' class.
        actors: The cluster that starts and calls actors; None for Ray.
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
        preview: Callable[[list[BaseAnswer]], None] | None = None,
        num_previewed: int = NUM_PREVIEWED,
        stall_seconds: float = DEFAULT_STALL_SECONDS,
        evaluator: type[SearchEvaluator] = SearchEvaluator,
        actors: SearchActors | None = None,
    ) -> None:
        self._config = config
        self._pool = pool
        self._folder = folder
        self._show = show
        self._preview = preview
        self._previewed = examples[:num_previewed] if preview is not None else []
        self._stall_seconds = stall_seconds
        self._cluster = RaySearchActors(config, pool, evaluator) if actors is None else actors
        self._groups = work_groups(examples, config.group_size, config.extended_at)
        self._calibration = calibration_groups(config)
        sizes = {group: len(members) for group, members in enumerate(self._groups) if group not in committed}
        # With a prior no group waits for others.
        prerequisites = set(self._calibration) & sizes.keys() if folder.prior() is None else set()
        self._work: WorkQueue[GroupResult] = WorkQueue(sizes, prerequisites)
        self._policy = FailurePolicy()
        #: The prior as actors take it; None while there is none.
        self._prior: Any = None
        #: Seconds an example that the last finished chunks took.
        self._throughput: deque[float] = deque(maxlen=_TIMED_CHUNKS)
        self._actors: list[_SearchActor] = []
        self._started = 0
        #: The calls in flight that poll the activity of actors.
        self._polls: dict[Any, _SearchActor] = {}
        self._num_actors = pool.num_actors
        self._next_start = self._next_poll = self._next_growth = 0.0
        self.progress = Progress(
            num_examples=len(examples),
            programs_an_example=config.search.simulations + 1,
        )
        for record in committed.values():
            self.progress.add(record)
        self.progress.resumed_examples = self.progress.done

    def run(self) -> Progress:
        """Work until every group is committed or set aside; no actor is left when this returns.

        Raises:
            UserError: The model cannot be loaded, its logits are not finite numbers, or the prior or the action space
                does not suit it.
            StoppedError: Actors fail to load the model or die one after the other, or a calibration group cannot be
                searched.
            StorageError: The store does not take a file, or cannot be reached.
        """
        try:
            self._resume_calibration()
            while not self._work.is_done:
                self._hand_out_chunks()
                self._grow()
                self._end_spare_actors()
                self._start_actors()
                for call in self._cluster.wait(
                    [actor.call for actor in self._actors if actor.call is not None], TICK_SECONDS
                ):
                    self._on_answer(call)
                self._poll_activity()
                self._replace_stalled()
                self.progress.actors_ready = self._num_ready
                self._show(self.progress)
        finally:
            for actor in list(self._actors):
                self._end(actor)
            self.progress.actors_ready = 0
        return self.progress

    # -- handing out -----------------------------------------------------------------------

    def _hand_out_chunks(self) -> None:
        """Give each idle actor a chunk, or a copy of one that takes long."""
        for actor in self._in_state(ActorState.IDLE):
            others = [other.worker for other in self._actors if other is not actor]
            chunk = self._work.take(actor.worker, others) or self._work.copy(self._overdue_chunks())
            if chunk is None:
                continue
            examples = [self._groups[chunk.group][index] for index in chunk.indices]
            calibrates = chunk.group in self._calibration
            prior = None if calibrates else self._prior
            actor.call = self._cluster.search(actor.handle, examples, prior, calibrates)
            actor.chunk, actor.state = chunk, ActorState.BUSY
            actor.began = actor.last_progress = self._cluster.now()

    def _overdue_chunks(self) -> set[Chunk]:
        """The chunks in flight that take much longer than others did."""
        if not self._throughput:
            return set()
        latest, seconds_an_example = self._cluster.now(), median(self._throughput)
        began: dict[Chunk, float] = {}
        for actor in self._actors:
            if actor.chunk is not None:
                began[actor.chunk] = min(actor.began, began.get(actor.chunk, actor.began))
        return {
            chunk
            for chunk, start in began.items()
            if latest - start > max(OVERDUE_SECONDS, OVERDUE * seconds_an_example * len(chunk))
        }

    def _grow(self) -> None:
        """Use nodes that joined later, unless the request names a number of actors."""
        if self._pool.elastic and self._cluster.now() >= self._next_growth:
            self._next_growth = self._cluster.now() + GROWTH_SECONDS
            self._num_actors = max(self._num_actors, self._cluster.capacity())

    def _end_spare_actors(self) -> None:
        """End idle actors for which there will be no chunk, and loading ones, which may keep a cluster growing."""
        excess = len(self._actors) - min(self._num_actors, self._work.most_wanted)
        spare = [*self._in_state(ActorState.IDLE), *self._in_state(ActorState.LOADING)]
        for actor in spare[: max(0, excess)]:
            self._end(actor)

    def _start_actors(self) -> None:
        """Start as many actors as there is work for, if the failure policy does not hold them back."""
        num_loading = len(self._promising_starts())
        if self._cluster.now() < self._next_start:
            return
        if self._policy.awaits_first_load(num_ready=self._num_ready, num_loading=num_loading):
            return
        busy = len(self._in_state(ActorState.BUSY))
        while len(self._actors) < min(self._num_actors, busy + len(self._work)):
            handle = self._cluster.start()
            self._actors.append(
                _SearchActor(
                    number=self._started, handle=handle, began=self._cluster.now(), call=self._cluster.load(handle)
                )
            )
            self._started += 1

    # -- taking back -----------------------------------------------------------------------

    def _on_answer(self, call: Any) -> None:
        """Take the result of an actor's call, or its failure."""
        actor = next(actor for actor in self._actors if actor.call == call)
        actor.call = None
        chunk, actor.chunk = actor.chunk, None
        answer = self._cluster.result(call)
        if actor.state is ActorState.PREVIEWING:
            self._on_previewed(actor, answer)
        elif chunk is None:
            if isinstance(answer, CallFailure):
                self._on_load_failed(actor, answer)
            else:
                self._on_loaded(actor, answer)
        else:
            actor.state = ActorState.IDLE
            if isinstance(answer, CallFailure):
                self._on_chunk_failed(actor, chunk, answer)
            else:
                self._on_chunk_finished(actor, chunk, answer)

    def _on_loaded(self, actor: _SearchActor, loaded: Loaded) -> None:
        self._policy.record(ActorLoaded())
        actor.state, actor.node = ActorState.IDLE, loaded.node
        check_same_source(loaded.installation, installation())
        self._folder.describe_model(loaded.facts)
        self._check_prior(loaded.facts["num_layers"])
        check_action_space(
            self._config.search.action_space,
            num_layers=loaded.facts["num_layers"],
            max_length=self._config.search.max_layers(loaded.facts["num_layers"]),
        )
        if self._previewed:
            actor.call = self._cluster.preview(actor.handle, self._previewed)
            actor.began, actor.state = self._cluster.now(), ActorState.PREVIEWING
            self._previewed = []

    def _on_previewed(self, actor: _SearchActor, answer: list[BaseAnswer] | CallFailure) -> None:
        """Show the base model's answers; without them the search goes on."""
        actor.state = ActorState.IDLE
        if not isinstance(answer, CallFailure):
            assert self._preview is not None
            self._preview(answer)
            return
        logger.warning("the base model's answers to the first examples cannot be shown: %s", one_line(answer.error))
        if answer.kind is not FailureKind.EXCEPTION:
            self._replace(actor, answer.error, self._policy.record(IdleActorFailed(kind=answer.kind)))

    def _on_load_failed(self, actor: _SearchActor, failure: CallFailure) -> None:
        others = self._others_may_work(actor)
        event = LoadFailed(kind=failure.kind, user_error=_is_user_error(failure.error), others=others)
        decision = self._policy.record(event)
        self._replace(actor, failure.error, decision)
        self._stop_if_due(decision, failure.error)

    def _on_chunk_finished(self, actor: _SearchActor, chunk: Chunk, result: GroupResult) -> None:
        self._policy.record(ChunkFinished(actor=actor.number))
        if self._work.is_in_flight(chunk):
            self._throughput.append((self._cluster.now() - actor.began) / len(chunk))
        self._finalize(self._work.finish(chunk, result))

    def _on_chunk_failed(self, actor: _SearchActor, chunk: Chunk, failure: CallFailure) -> None:
        event = ChunkFailed(
            actor=actor.number,
            kind=failure.kind,
            first_attempt=self._work.is_first_attempt(chunk),
            user_error=_is_user_error(failure.error),
        )
        decision = self._policy.record(event)
        if decision.replace:
            self._replace(actor, failure.error, decision)
        if decision.charge:
            reason = f"{type(failure.error).__name__}: {one_line(failure.error)}"
            self._finalize(self._work.fail(chunk, reason, actor.worker))
        else:
            self._work.requeue(chunk)
        self._stop_if_due(decision, failure.error)

    def _replace(self, actor: _SearchActor, error: Exception, decision: Decision) -> None:
        """End an actor that failed; another one starts after the decision's pause."""
        self._end(actor)
        self.progress.actors_lost += 1
        logger.warning("an actor failed and is replaced: %s", one_line(error))
        if decision.pause_seconds:
            self._next_start = self._cluster.now() + decision.pause_seconds

    def _stop_if_due(self, decision: Decision, error: Exception) -> None:
        """End the run, if that is the decision.

        Raises:
            UserError: The model cannot be loaded or searched, for a reason that the user can mend.
            StoppedError: Actors fail one after the other.
        """
        match decision.stop:
            case None:
                return
            case StopReason.USER_ERROR:
                raise UserError(str(error)) from None
            case StopReason.STARTS_FAIL:
                raise StoppedError(with_cure("actors fail while they load the model", error)) from error
            case StopReason.ACTORS_DIE:
                raise StoppedError(
                    f"{MAX_DEATHS_IN_A_ROW} actors died one after the other and finished nothing; the last error: "
                    f"{one_line(error)}"
                ) from error

    def _replace_stalled(self) -> None:
        """Replace actors that have run no program for long: an example, or its grader, hangs."""
        for actor in self._in_state(ActorState.PREVIEWING):
            if self._cluster.now() - actor.began > self._stall_seconds:
                self._on_previewed(actor, CallFailure(kind=FailureKind.STALL, error=self._stalled()))
        for actor in self._in_state(ActorState.BUSY):
            if actor.chunk is not None and self._cluster.now() - actor.last_progress > self._stall_seconds:
                failure = CallFailure(kind=FailureKind.STALL, error=self._stalled())
                self._on_chunk_failed(actor, actor.chunk, failure)

    def _stalled(self) -> TimeoutError:
        return TimeoutError(f"stalled: no program was finished for {self._stall_seconds:g} seconds (--stall-seconds)")

    def _finalize(self, finalized: FinalizedGroup[GroupResult] | None) -> None:
        """Commit a group of which nothing is left to do, or set it aside if none of its examples could be searched.

        Raises:
            StoppedError: A calibration group has no result.
        """
        if finalized is None:
            return
        group, examples = finalized.group, self._groups[finalized.group]
        failed = {examples[index].id: reason for index, reason in sorted(finalized.failed.items())}
        for example_id, reason in failed.items():
            logger.error("example %s is set aside: %s", example_id, reason)
        if finalized.results:
            result = _joined(finalized.results)
            evaluations = result.evaluations if group in self._calibration else None
            record = self._folder.commit(
                group,
                result.rows,
                failed={**result.failed, **failed},
                evaluations=evaluations,
                improvements=result.improvements,
            )
            self.progress.add(record)
        else:
            self._folder.set_aside(group, failed)
            self.progress.failed_examples += len(failed)
        if self.progress.calibrating:
            if not finalized.results:
                # The prior decides the rows of all other examples: it may not depend on an outage.
                raise StoppedError(
                    f"no example of calibration group {group} could be searched; the last error: "
                    f"{list(failed.values())[-1]}; the same command tries them again, and a new run with "
                    "--calibration 0 does without"
                )
            self._fit_prior_once_calibrated()

    # -- the prior -------------------------------------------------------------------------

    def _resume_calibration(self) -> None:
        """Do what an earlier call may have left: its calibration groups are committed, and the prior is not fitted."""
        self._fit_prior_once_calibrated()

    def _fit_prior_once_calibrated(self) -> None:
        """Fit the prior once every calibration group is committed. One that the folder holds already stays."""
        self.progress.calibrating = self._work.awaits_prerequisites
        if self.progress.calibrating:
            return
        prior = self._folder.prior()
        if prior is None:
            groups = [record.group for record in self.progress.committed if record.group in self._calibration]
            compare_margins = self._config.search.margin_scale is not None
            prior = fit_prior(self._folder.evaluations(groups), compare_margins=compare_margins)
            if prior is not None:
                self._folder.write_prior(prior)
        self._prior = None if prior is None else self._cluster.share(prior)

    def _check_prior(self, num_layers: int) -> None:
        prior = self._folder.prior()
        if prior is not None and prior.num_layers != num_layers:
            raise UserError(
                f"the prior was fitted on a model of {prior.num_layers} layers, this one has {num_layers}; "
                "give a prior of the same model, or none"
            )

    # -- the actors ------------------------------------------------------------------------

    def _poll_activity(self) -> None:
        """Poll the actors for the programs that they have run, without waiting for their answers."""
        for call in self._cluster.wait(self._polls, 0.0) if self._polls else []:
            actor, activity = self._polls.pop(call), self._cluster.result(call)
            if isinstance(activity, CallFailure):
                # The search of a busy actor fails too, and is dealt with there.
                if actor.state is ActorState.IDLE and actor in self._actors:
                    decision = self._policy.record(IdleActorFailed(kind=activity.kind))
                    self._replace(actor, activity.error, decision)
                continue
            programs_run, programs_replayed = activity
            if (programs_run, programs_replayed) != (actor.programs_run, actor.programs_replayed):
                actor.last_progress = self._cluster.now()
            self.progress.programs_run += programs_run - actor.programs_run
            actor.programs_run, actor.programs_replayed = programs_run, programs_replayed
        if self._cluster.now() >= self._next_poll:
            self._next_poll = self._cluster.now() + TICK_SECONDS
            # An actor that has not answered yet is not polled again: one that hangs would be polled for ever.
            polled = {actor.number for actor in self._polls.values()}
            for actor in self._actors:
                if actor.state is not ActorState.LOADING and actor.number not in polled:
                    self._polls[self._cluster.activity(actor.handle)] = actor

    @property
    def _num_ready(self) -> int:
        """Actors that have loaded the model."""
        return len(self._actors) - len(self._in_state(ActorState.LOADING))

    def _in_state(self, state: ActorState) -> list[_SearchActor]:
        return [actor for actor in self._actors if actor.state is state]

    def _promising_starts(self) -> list[_SearchActor]:
        """Actors that may yet load the model; one that takes as long as a stalled one is not waited for."""
        latest = self._cluster.now() - self._stall_seconds
        return [actor for actor in self._in_state(ActorState.LOADING) if actor.began > latest]

    def _others_may_work(self, failed: _SearchActor) -> bool:
        """Whether an actor beside the one that failed to load has loaded the model, or may do so yet."""
        return self._num_ready > 0 or any(actor is not failed for actor in self._promising_starts())

    def _end(self, actor: _SearchActor) -> None:
        self._actors.remove(actor)
        self._cluster.end(actor.handle)


def work_groups(examples: Sequence[Example], size: int, extended_at: Sequence[int] = ()) -> list[Sequence[Example]]:
    """Consecutive examples in groups of ``size``; what is committed already changes no group. See ``group_ranges``."""
    return [examples[places.start : places.stop] for places in group_ranges(len(examples), size, extended_at)]


def _joined(results: Iterable[GroupResult]) -> GroupResult:
    """The results of a group's chunks as one."""
    joined = GroupResult(rows=[], failed={}, evaluations=[], improvements={})
    for result in results:
        joined.rows.extend(result.rows)
        joined.failed.update(result.failed)
        joined.evaluations.extend(result.evaluations)
        joined.improvements.update(result.improvements)
    return joined


def _is_user_error(error: Exception) -> bool:
    """Whether an error says that the request is wrong."""
    return isinstance(error, UserError)

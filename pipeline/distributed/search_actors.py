"""The coordinator's one door to Ray: start actors, call them, wait for answers, end them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.distributed.cluster import PoolConfig, fitting_actors
from pipeline.distributed.evaluator import SearchEvaluator
from pipeline.distributed.failure_policy import FailureKind
from pipeline.prior import Prior
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example


@dataclass(frozen=True, kw_only=True)
class CallFailure:
    """A call that has no result.

    Attributes:
        kind: The kind of the failure.
        error: The actor's own exception, or what ended the actor.
    """

    kind: FailureKind
    error: Exception


class SearchActors(Protocol):
    """The calls that the coordinator makes of a cluster. A call and an actor's handle are opaque, hashable values."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def capacity(self) -> int:
        """Actors that the cluster, as it is now, has room for."""
        ...

    def start(self) -> Any:
        """Start an actor; returns its handle."""
        ...

    def end(self, actor: Any) -> None:
        """End an actor, in any state."""
        ...

    def load(self, actor: Any) -> Any:
        """Start the call that loads the model (``SearchEvaluator.load``)."""
        ...

    def preview(self, actor: Any, examples: Sequence[Example]) -> Any:
        """Start the call that has the base model answer examples (``SearchEvaluator.preview``)."""
        ...

    def search(self, actor: Any, examples: Sequence[Example], prior: Any, calibrates: bool) -> Any:
        """Start the call that searches examples (``SearchEvaluator.search``)."""
        ...

    def activity(self, actor: Any) -> Any:
        """Start the call that counts the programs run so far (``SearchEvaluator.activity``)."""
        ...

    def share(self, prior: Prior) -> Any:
        """Store a prior once for all actors; returns what ``search`` takes for it."""
        ...

    def wait(self, calls: Iterable[Any], seconds: float) -> list[Any]:
        """The calls that have ended, once there is one or the time is over; without calls the time is spent."""
        ...

    def result(self, call: Any) -> Any:
        """The result of a call that has ended; a ``CallFailure`` if it has none."""
        ...


class RaySearchActors:
    """Actors on Ray.

    Args:
        config: The run's settings.
        pool: Number of actors, and their resources.
        evaluator: The actors' class.
    """

    def __init__(self, config: RunConfig, pool: PoolConfig, evaluator: type[SearchEvaluator]) -> None:
        self._config = config
        self._pool = pool
        self._class = ray.remote(
            num_cpus=pool.cpus_per_actor,
            num_gpus=pool.gpus_per_actor,
            # The coordinator owns retries: an actor that Ray restarted would come back without its model.
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"progress": 1},
        )(evaluator)

    def now(self) -> float:
        return time.monotonic()

    def capacity(self) -> int:
        return fitting_actors(self._pool)

    def start(self) -> Any:
        return self._class.remote(self._config)

    def end(self, actor: Any) -> None:
        with suppress(RayError, RuntimeError):
            ray.kill(actor)

    def load(self, actor: Any) -> Any:
        return actor.load.remote()

    def preview(self, actor: Any, examples: Sequence[Example]) -> Any:
        return actor.preview.remote(examples)

    def search(self, actor: Any, examples: Sequence[Example], prior: Any, calibrates: bool) -> Any:
        return actor.search.remote(examples, prior, calibrates)

    def activity(self, actor: Any) -> Any:
        return actor.activity.remote()

    def share(self, prior: Prior) -> Any:
        return ray.put(prior)

    def wait(self, calls: Iterable[Any], seconds: float) -> list[Any]:
        pending = list(calls)
        if not pending:
            time.sleep(seconds)
            return []
        ray.wait(pending, num_returns=1, timeout=seconds)
        return list(ray.wait(pending, num_returns=len(pending), timeout=0)[0])

    def result(self, call: Any) -> Any:
        try:
            return ray.get(call)
        except RayError as error:
            return failure_of(error)


def failure_of(error: RayError) -> CallFailure:
    """The failure behind an error of Ray: an exception that the actor raised leaves it alive, any other ends it."""
    if isinstance(error, RayTaskError):
        cause = error.cause if isinstance(error.cause, Exception) else error
        return CallFailure(kind=FailureKind.EXCEPTION, error=cause)
    return CallFailure(kind=FailureKind.PREEMPTION if is_preempted(error) else FailureKind.DEATH, error=error)


def is_preempted(error: RayError) -> bool:
    """Whether an actor's machine was taken away, as its drain notice had said."""
    return bool(getattr(error, "preempted", False))

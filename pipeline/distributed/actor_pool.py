"""A pool of actors that each hold a model (``model_actor``) and answer one call at a time; dead ones are replaced.

For work whose answers may come in any order and be computed again: features, results, evaluations. A search has its
own coordinator, which commits.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.installation import Installation, check_same_source, installation
from pipeline.distributed.ray_errors import one_line, with_cure
from pipeline.errors import UserError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

#: Times that an item is handed out before the work is given up.
MAX_ATTEMPTS = 3


class PooledActor(Protocol):
    """The methods of an actor's class that the pool calls."""

    def load(self) -> Any:
        """Load the model; an error here ends the work."""
        ...

    def work(self, item: Any) -> Any:
        """Do the work of one item, and return its result."""
        ...


@dataclass(kw_only=True)
class _PooledActor:
    """An actor and the call under way on it; the item is None while it loads."""

    actor: Any
    call: Any
    item: int | None = None


class ActorPool(AbstractContextManager["ActorPool[Item]"], Generic[Item]):
    """Actors of one class; use as a context manager, at whose end they are gone.

    Args:
        actor_class: The actors' class.
        arguments: The arguments that each one is constructed with.
        pool: Number of actors, and their resources.
    """

    def __init__(self, actor_class: type[PooledActor], arguments: tuple[Any, ...], pool: PoolConfig) -> None:
        self._pool = pool
        self._class = ray.remote(
            num_cpus=pool.cpus_per_actor, num_gpus=pool.gpus_per_actor, max_restarts=0, max_task_retries=0
        )(actor_class)
        # Once for all actors: a large argument is stored a single time.
        self._arguments = [ray.put(argument) for argument in arguments]
        self._workers: list[_PooledActor] = []
        self._failed_starts = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            with suppress(RayError, RuntimeError):
                ray.kill(worker.actor)
        self._workers.clear()

    def map(self, items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """Each item with its answer, as they come. An item whose actor dies is handed out again.

        Raises:
            UserError: The model cannot be loaded, an item was refused, or actors died over it too often.
        """
        todo = deque(range(len(items)))
        attempts = [0] * len(items)
        while todo or any(worker.item is not None for worker in self._workers):
            for worker in self._workers:
                if worker.call is None and todo:
                    worker.item = todo.popleft()
                    worker.call = worker.actor.work.remote(items[worker.item])
            busy = sum(worker.item is not None for worker in self._workers)
            while len(self._workers) < min(self._pool.num_actors, busy + len(todo)):
                actor = self._class.remote(*self._arguments)
                self._workers.append(_PooledActor(actor=actor, call=actor.load.remote()))
            calls = {worker.call: worker for worker in self._workers if worker.call is not None}
            for call in ray.wait(list(calls), num_returns=1)[0]:
                worker = calls[call]
                item, worker.call, worker.item = worker.item, None, None
                try:
                    answer = ray.get(call)
                except RayTaskError as error:
                    # The same item would fail the same way on another actor.
                    cause = error.cause if isinstance(error.cause, Exception) else error
                    if isinstance(cause, UserError):
                        raise UserError(str(cause)) from None
                    what = "an actor cannot load the model" if item is None else "an actor failed at its work"
                    raise UserError(f"{what}: {type(cause).__name__}: {one_line(cause)}") from error
                except RayError as error:
                    preempted = self._replace(worker, loading=item is None, error=error)
                    if item is not None:
                        if not preempted:
                            attempts[item] += 1
                        if attempts[item] >= MAX_ATTEMPTS:
                            raise UserError(
                                with_cure(f"{MAX_ATTEMPTS} actors died over the same work", error)
                            ) from error
                        todo.appendleft(item)
                else:
                    if item is None:
                        self._failed_starts = 0
                        if isinstance(answer, Installation):
                            check_same_source(answer, installation())
                    else:
                        yield items[item], answer

    def _replace(self, worker: _PooledActor, *, loading: bool, error: RayError) -> bool:
        """Remove an actor that died; whether it was preempted, which no item can be the reason of."""
        logger.warning("an actor died and is replaced: %s", one_line(error))
        preempted = bool(getattr(error, "preempted", False))
        self._workers.remove(worker)
        with suppress(RayError, RuntimeError):
            ray.kill(worker.actor)
        if loading and not preempted:
            self._failed_starts += 1
        if self._failed_starts >= MAX_ATTEMPTS:
            raise UserError(with_cure("actors die while they load the model", error)) from error
        return preempted

"""Actors in the test's own process, in place of Ray's: whole commands without a process, and its imports, for each.

A call runs when it is made. Arguments and answers are copied by Ray's own serializer, and an error comes back as
Ray's, so that what cannot travel to an actor fails here too. Answers come last call first: an order that Ray may
choose. That actors die, and are replaced, is tested on Ray itself (``tests/pipeline/distributed``).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import RayTaskError

from pipeline.distributed import actor_pool, cluster, search_actors

#: Cores of the cluster that stands in for Ray's.
NUM_CPUS = 2


@dataclass(frozen=True, eq=False)
class _Stored:
    """A value, or the error of the call that should have given it: the counterpart of an object reference."""

    value: Any = None
    error: RayTaskError | None = None


class _Actor:
    """An object whose methods are called by ``.method.remote(...)``."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return _Remote(getattr(self._wrapped, name))


@dataclass(frozen=True)
class _Remote:
    """A method of an actor."""

    method: Callable[..., Any]

    def remote(self, *arguments: Any) -> _Stored:
        try:
            return _Stored(_copied(self.method(*map(_resolved, arguments))))
        except Exception as error:
            return _Stored(error=RayTaskError(self.method.__name__, traceback.format_exc(), error))


@dataclass(frozen=True)
class _ActorClass:
    """A class of actors: ``.remote(...)`` makes one."""

    wrapped: type[Any]

    def remote(self, *arguments: Any) -> _Actor:
        return _Actor(self.wrapped(*map(_resolved, arguments)))


def _resolved(argument: Any) -> Any:
    return _copied(argument.value if isinstance(argument, _Stored) else argument)


def _copied(value: Any) -> Any:
    # Reads only what this process has just written, as Ray does between its own processes.
    return cloudpickle.loads(cloudpickle.dumps(value))


class LocalRay:
    """The functions of Ray that an ``ActorPool`` and ``RaySearchActors`` call."""

    def remote(self, **resources: Any) -> Callable[[type[Any]], _ActorClass]:
        return _ActorClass

    def put(self, value: Any) -> _Stored:
        return _Stored(_copied(value))

    def wait(
        self, calls: Sequence[_Stored], num_returns: int, timeout: float | None = None
    ) -> tuple[list[_Stored], list[_Stored]]:
        newest_first = list(reversed(calls))
        return newest_first[:num_returns], newest_first[num_returns:]

    def get(self, call: _Stored) -> Any:
        if call.error is not None:
            raise call.error
        return call.value

    def kill(self, actor: _Actor) -> None:
        pass


@contextmanager
def actors_in_this_process() -> Iterator[None]:
    """Run every command's actors in this process for as long as the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actor_pool, "ray", LocalRay())
        patch.setattr(search_actors, "ray", LocalRay())
        patch.setattr(cluster, "_start_ray", lambda: True)
        patch.setattr(ray, "cluster_resources", lambda: {"CPU": float(NUM_CPUS)})
        yield

"""The Ray cluster: joining or starting one, and what actors may run on."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Literal

from pipeline.distributed.installation import check_not_hidden, search_folders
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.model_source import ModelSource
from pipeline.storage import AnyPath

#: Set by Ray in the process that a submitted job starts.
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
#: Names the cluster to join.
_RAY_ADDRESS = "RAY_ADDRESS"
#: How long a cluster's head has to accept a connection.
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """The number of actors and their resources. Not part of a run's settings: rows do not depend on it."""

    num_actors: int
    """Actors at once, at most; fewer where there are fewer groups or resources."""
    cpus_per_actor: int
    """Cores that an actor reserves."""
    gpus_per_actor: float
    """GPUs that an actor reserves; 0 on the CPU."""
    elastic: bool = False
    """Whether more actors start where the cluster grows."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that actors are requested to have, before the cluster is known.

    Raises:
        UserError: A field is out of its range.
    """

    num_actors: int | None = field(
        default=None, metadata=option("--actors", at_least=1, unset="as many as there is room for")
    )
    """Actors at once, each with a copy of the model."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the actors."""
    gpus_per_actor: float = field(default=1.0, metadata=option("--num-gpus", above=0))
    """GPUs that an actor reserves on cuda; may be a fraction."""
    cpus_per_actor: int = field(default=1, metadata=option(at_least=1, advanced=True))
    """Cores, and torch threads, of an actor."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model's weights."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The resolved resources of actors: no field is ``auto``."""

    device: str
    """Device of the actors: ``cpu`` or ``cuda``."""
    dtype: str
    """Precision of the model's weights."""
    pool: PoolConfig
    """Number of actors, and the resources that each reserves."""
    cluster: str = ""
    """The cluster for messages, such as ``Ray started here (2 CPUs)``."""

    def describe(self) -> str:
        """The placement for a message, such as ``up to 4 actors on cpu in float32``."""
        where = f"; {self.cluster}" if self.cluster else ""
        actors = "1 actor" if self.pool.num_actors == 1 else f"up to {self.pool.num_actors} actors"
        return f"{actors} on {self.device} in {self.dtype}{where}"


def _find_placement(wanted: Resources) -> Placement:
    """Join or start a Ray cluster, and resolve the device, the precision and the number of actors.

    Raises:
        UserError: There is no cluster, or it has not the resources.
    """
    import ray  # takes a second, which the command line's --help need not wait for

    own_cluster = _start_ray()
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    device = ("cuda" if gpus else "cpu") if wanted.device == "auto" else wanted.device
    dtype = ("bfloat16" if device == "cuda" else "float32") if wanted.dtype == "auto" else wanted.dtype
    # A cluster that was joined may be bringing up its nodes; one of our own never will.
    if device == "cuda" and gpus < wanted.gpus_per_actor and own_cluster:
        raise UserError(
            f"--device cuda with {wanted.gpus_per_actor:g} GPUs an actor, but the Ray cluster has {gpus:g} GPUs; "
            "use --device cpu, or a smaller --num-gpus"
        )
    if wanted.device == "auto" and not gpus and cpus < wanted.cpus_per_actor:
        raise UserError(
            "the Ray cluster has no GPU and too few CPUs yet; name the resources that will join by --device and "
            "--actors"
        )
    if cpus < wanted.cpus_per_actor and own_cluster:
        raise UserError(f"--cpus-per-actor {wanted.cpus_per_actor}, but the Ray cluster has {cpus:g} CPUs")
    pool = PoolConfig(
        num_actors=wanted.num_actors or 1,
        cpus_per_actor=wanted.cpus_per_actor,
        gpus_per_actor=wanted.gpus_per_actor if device == "cuda" else 0.0,
        elastic=wanted.num_actors is None,
    )
    if pool.elastic:
        pool = replace(pool, num_actors=max(1, fitting_actors(pool)))
    return Placement(device=device, dtype=dtype, pool=pool, cluster=_describe_cluster(own_cluster, cpus, gpus))


def _describe_cluster(own_cluster: bool, cpus: float, gpus: float) -> str:
    """The cluster for messages: whether it was started here or joined, where it is, and what it has."""
    import ray

    has = f"{cpus:g} CPUs" + (f", {gpus:g} GPUs" if gpus else "")
    if own_cluster:
        return f"Ray started here ({has})"
    return f"joined the Ray cluster at {ray.get_runtime_context().gcs_address} ({has})"


@contextmanager
def joined_cluster(wanted: Resources, model: ModelSource | None = None) -> Iterator[Placement]:
    """Join or start a Ray cluster for as long as the context lasts.

    A model that would be refused is refused first: actors are slow to start, and each would refuse it again.

    A process that uses Ray already, such as a notebook, keeps its cluster: the context joins it, and leaves it running.

    Args:
        wanted: The requested resources of actors.
        model: The model that the actors will load; see ``check_before_loading``. None for actors without a model.

    Yields:
        The placement of actors on the cluster.

    Raises:
        UserError: The model is refused, there is no cluster, or it has not the resources.
    """
    import ray

    if model is not None:
        from pipeline.engine.loading import check_before_loading  # with torch, which no other part of a driver needs

        check_before_loading(model)

    is_callers = ray.is_initialized()
    try:
        yield _find_placement(wanted)
    finally:
        if not is_callers:
            ray.shutdown()


def fitting_actors(pool: PoolConfig) -> int:
    """Actors that the cluster, as it is now, has room for."""
    import ray

    resources = ray.cluster_resources()
    if pool.gpus_per_actor:
        return int(resources.get("GPU", 0.0) // pool.gpus_per_actor)
    return int(resources.get("CPU", 0.0) // pool.cpus_per_actor)


def check_output(path: AnyPath, option: str = "--out") -> None:
    """Refuse an output that would lie in a job's temporary copy of its working directory.

    Raises:
        UserError: The path is relative, and this process is a Ray job.
    """
    if _RAY_JOB in os.environ and not path.is_absolute():
        raise UserError(
            f"in a Ray job {option} must be an absolute path: {str(path)!r} would lie in the job's temporary copy "
            "of the working directory and vanish with it"
        )


def _start_ray() -> bool:
    """Join the cluster that this process belongs to, or start one; True if it is our own.

    Raises:
        UserError: ``RAY_ADDRESS`` names a cluster that does not answer, Ray cannot start, or the working folder hides
            the package from its workers.
    """
    import ray

    check_not_hidden(search_folders())
    if not ray.is_initialized():
        _init_ray()
    # No public function of Ray says whether the cluster was joined or started.
    node = ray._private.worker._global_node
    return node is not None and node.is_head()


def _init_ray() -> None:
    import ray

    _check_address(os.environ.get(_RAY_ADDRESS, ""))
    logging.getLogger("ray").setLevel(logging.ERROR)
    _interrupt_on_sigterm()
    try:
        # Bare on purpose: a job on a cluster joins it, a laptop starts its own.
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if "AF_UNIX" in reason:
            reason = f"the path of Ray's files is too long; set RAY_TMPDIR to a short folder, such as /tmp ({reason})"
        raise UserError(f"no Ray cluster can be joined or started: {reason}") from None
    except SystemExit:
        raise KeyboardInterrupt from None  # Ray's own answer to a signal while it starts
    _interrupt_on_sigterm()  # once more: Ray takes the signal for itself


def _check_address(address: str) -> None:
    """Refuse the address of a cluster that is gone: Ray would try it for minutes.

    Raises:
        UserError: Nothing accepts a connection there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # no address, a word such as "auto", or a form that Ray refuses at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {_RAY_ADDRESS}={address} ({error.strerror or error}); start it, or unset "
            f"{_RAY_ADDRESS} to start Ray here"
        ) from None


def _interrupt_on_sigterm() -> None:
    """A job that is stopped ends as on Ctrl-C."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)

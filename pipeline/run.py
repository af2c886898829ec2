"""One search from a user's words to a run folder: checks, Ray, the coordinator, the closing marks."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from pipeline import __version__
from pipeline.card import data_set_card
from pipeline.config import RunConfig, fingerprint
from pipeline.coordinator import Coordinator, PoolConfig, Progress
from pipeline.errors import UserError
from pipeline.model_source import DEVICES, DTYPES, ModelSource, resolve_model
from pipeline.search import SearchConfig
from pipeline.shards import RunFolder
from pipeline.tasks import DataRequest, Example, get_task

#: Set by Ray in the process that a submitted job starts.
_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_NOTED_PACKAGES = ("torch", "transformers", "ray", "pyarrow", "tokenizers", "math-verify")


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What ``drllm-pipeline search`` was asked for, before anything is looked up."""

    model: str
    task: str
    out: Path
    data: str | None = None
    split: str = "train"
    limit: int | None = None
    max_new_tokens: int | None = None
    search: SearchConfig
    seed: int = 0
    keep: int = 4
    group_size: int = 8
    device: str = "auto"
    dtype: str = "auto"
    num_actors: int | None = None
    cpus_per_actor: int = 1
    gpus_per_actor: float = 1.0

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise UserError(f"unknown device {self.device!r}; choose one of: {', '.join(DEVICES)}")
        if self.dtype not in DTYPES:
            raise UserError(f"unknown dtype {self.dtype!r}; choose one of: {', '.join(DTYPES)}")
        for name, value in (
            ("actors", self.num_actors),
            ("cpus-per-actor", self.cpus_per_actor),
            ("keep", self.keep),
            ("group-size", self.group_size),
        ):
            if value is not None and value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")
        if self.gpus_per_actor <= 0:
            raise UserError(f"--num-gpus must be above 0, got {self.gpus_per_actor}")


def run_search(
    request: SearchRequest,
    *,
    show: Callable[[Progress], None] = lambda progress: None,
    announce: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Search every question that is not committed yet.

    Args:
        request: What to do.
        show: Told of the progress about twice a second.
        announce: Told, in a line each, what is about to happen.

    Returns:
        The progress at the end; ``complete`` where every question is committed.

    Raises:
        UserError: Something in the request is wrong. Nothing was started then.
        KeyboardInterrupt: The run was interrupted; everything committed stays.
    """
    if _RAY_JOB in os.environ and not request.out.is_absolute():
        raise UserError(
            f"in a Ray job --out must be an absolute path: {str(request.out)!r} would lie in the job's temporary copy "
            "of the working directory and vanish with it"
        )
    examples = read_examples(request)
    model = resolve_model(request.model)
    _quiet_ray()
    try:
        config, pool = _plan(request, model, examples)
        _interrupt_on_sigterm()
        folder = RunFolder(request.out)
        committed = folder.open(config, provenance=_provenance())
        folder.clear_failures()
        coordinator = Coordinator(
            config=config, pool=pool, examples=examples, folder=folder, committed=committed, show=show
        )
        resumed = coordinator.progress.resumed_examples
        announce(
            f"{len(examples)} questions of task {config.task}"
            + (f", {resumed} of them committed already" if resumed else "")
            + f"; up to {pool.num_actors} actors on {config.device} in {config.dtype}; run folder {folder.root}"
        )
        try:
            progress = coordinator.run()
        finally:
            folder.write_card(data_set_card(config, coordinator.progress))
        if progress.complete:
            folder.mark_complete()
        return progress
    finally:
        ray.shutdown()


def read_examples(request: SearchRequest) -> list[Example]:
    """The request's questions.

    Raises:
        UserError: The task or the data is wrong.
    """
    task = get_task(request.task, max_new_tokens=request.max_new_tokens)
    if task.needs_data and request.data is None:
        hint = f", for example --data {task.hub_data}" if task.hub_data else ""
        raise UserError(f"task {task.name!r} needs --data: a file, a folder or a hub data set{hint}")
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit must be at least 1, got {request.limit}")
    return task.read(DataRequest(data=request.data, split=request.split, limit=request.limit, seed=request.seed))


def _plan(request: SearchRequest, model: ModelSource, examples: list[Example]) -> tuple[RunConfig, PoolConfig]:
    """Join or start a Ray cluster and settle what depends on it: the device and the actors."""
    # Bare on purpose: a job on a cluster joins it, a laptop starts its own.
    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    device = ("cuda" if gpus else "cpu") if request.device == "auto" else request.device
    dtype = ("bfloat16" if device == "cuda" else "float32") if request.dtype == "auto" else request.dtype
    # A cluster that was joined may be bringing up its GPU nodes; one of our own never will.
    joined = "RAY_ADDRESS" in os.environ
    if device == "cuda" and gpus < request.gpus_per_actor and not joined:
        raise UserError(
            f"--device cuda with {request.gpus_per_actor:g} GPUs an actor, but the Ray cluster has {gpus:g} GPUs; "
            "use --device cpu, or a smaller --num-gpus"
        )
    if cpus < request.cpus_per_actor and not joined:
        raise UserError(f"--cpus-per-actor {request.cpus_per_actor}, but the Ray cluster has {cpus:g} CPUs")
    try:
        config = RunConfig(
            model=model,
            task=request.task,
            data=request.data,
            data_sha256=fingerprint(examples),
            split=request.split,
            limit=request.limit,
            max_new_tokens=request.max_new_tokens,
            search=request.search,
            seed=request.seed,
            keep=request.keep,
            group_size=request.group_size,
            device=device,
            dtype=dtype,
            cpus_per_actor=request.cpus_per_actor,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    fitting = int(gpus // request.gpus_per_actor) if device == "cuda" else int(cpus // request.cpus_per_actor)
    pool = PoolConfig(
        num_actors=request.num_actors or max(fitting, 1),
        cpus_per_actor=request.cpus_per_actor,
        gpus_per_actor=request.gpus_per_actor if device == "cuda" else 0.0,
    )
    return config, pool


def _provenance() -> dict[str, Any]:
    versions = {"drllm-pipeline": __version__, "python": platform.python_version()}
    for package in _NOTED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions}


def _interrupt_on_sigterm() -> None:
    """A job that is stopped ends as on Ctrl-C. Set after Ray's start, which takes the signal for itself."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def _quiet_ray() -> None:
    """Ray's own notes about its start are no news to somebody who waits for a search."""
    logging.getLogger("ray").setLevel(logging.ERROR)

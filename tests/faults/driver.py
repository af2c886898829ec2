"""A search by a driver that dies, or receives a signal to stop, at a chosen moment.

    python tests/faults/driver.py OUT FAULTS ACTORS [STEP]

STEP is the moment at which the driver kills itself: in the third commit ``staged``, ``checked``, ``moved``,
``recorded`` or ``between``; when the first calibration group has been recorded (``calibrated``); or before the
``prior`` of both groups is written.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import stub
from mutations import remove_guards

from pipeline.cli import search as cli
from pipeline.distributed.cluster import Placement, Resources, joined_cluster
from pipeline.distributed.coordinator import Coordinator
from pipeline.model_source import ModelSource
from pipeline.search.config import PRESETS
from pipeline.shards.progress import Progress
from pipeline.shards.run_folder import RunFolder
from pipeline.storage import AnyPath, LocalWriter, locate
from pipeline.workflows import run_search as run
from pipeline.workflows.run_search import run_search
from pipeline.workflows.search_request import SearchRequest

#: Groups that are committed when a driver is killed.
COMMITTED = {"staged": 2, "checked": 2, "moved": 2, "recorded": 3, "between": 2, "calibrated": 1, "prior": 2}
QUESTIONS, GROUP_SIZE = 24, 4


def request(out: AnyPath, *, actors: int | None, stall_seconds: float = 600.0) -> SearchRequest:
    """The search that every fault disturbs."""
    return SearchRequest(
        model="smollm2",
        task="arithmetic",
        out=out,
        limit=QUESTIONS,
        search=replace(PRESETS["default"]["drllm"], simulations=20),
        group_size=GROUP_SIZE,
        calibration=8,
        stall_seconds=stall_seconds,
        resources=Resources(device="cpu", num_actors=actors),
    )


def search(
    out: AnyPath,
    faults: Path,
    *,
    actors: int | None,
    pause: float = 0.02,
    show: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> Progress:
    """Run it, with actors that have no model."""
    stubbed = partial(Coordinator, evaluator=stub.evaluator(faults, pause=pause))
    with mock.patch.object(run, "Coordinator", stubbed), mock.patch.object(run, "joined_cluster", without_model):
        return run_search(request(out, actors=actors, **options), show=show)


def without_model(wanted: Resources, model: ModelSource) -> AbstractContextManager[Placement]:
    """Join a cluster for actors that load nothing: there is no model to be checked."""
    return joined_cluster(wanted)


def die_at(step: str) -> None:
    """Let this process be killed at a step of a commit."""

    def kill(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if step == "prior":
        RunFolder.write_prior = kill
        return
    commits, before = [], 0 if step == "calibrated" else COMMITTED["between"]

    def counted(commit: Any) -> Any:
        def wrapped(self: RunFolder, *arguments: Any, **options: Any) -> Any:
            commits.append(1)
            if len(commits) <= before:
                return commit(self, *arguments, **options)
            if step == "between":
                kill()
            if step == "staged":
                RunFolder._check_written = staticmethod(kill)
            elif step == "checked":
                LocalWriter._move = staticmethod(kill)
            elif step == "moved":
                RunFolder._write_json = kill
            result = commit(self, *arguments, **options)
            kill()  # recorded, or calibrated
            return result

        return wrapped

    RunFolder._commit = counted(RunFolder._commit)


def main() -> None:
    remove_guards()
    out, faults, actors = locate(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    if len(sys.argv) > 4:
        die_at(sys.argv[4])
    stubbed = partial(Coordinator, evaluator=stub.evaluator(faults, pause=0.1))
    with mock.patch.object(run, "Coordinator", stubbed), mock.patch.object(run, "joined_cluster", without_model):
        sys.exit(cli.run_and_show(request(out, actors=actors)))


if __name__ == "__main__":
    main()

"""Two hours' worth of groups in minutes: what a run holds in memory must not grow with how long it runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from unittest import mock

import driver
import psutil
import pytest
import stub

from pipeline.distributed.coordinator import Coordinator
from pipeline.workflows import run_search as run
from pipeline.workflows.run_search import run_search

pytestmark = pytest.mark.ray

#: A group of eight takes an actor half a minute with SmolLM2 on one core: two hours of two actors.
GROUPS, GROUP_SIZE = 480, 8
MOST_GROWTH = 24 << 20


def resident(process: psutil.Process) -> int:
    return process.memory_info().rss


def test_memory_is_flat(machine, tmp_path):
    """Catches references, results or attempts that a run keeps of every group, and actors that keep their searches."""
    (tmp_path / "faults").mkdir()
    me, driver_bytes, actor_bytes = psutil.Process(), [], []

    def look(progress) -> None:
        driver_bytes.append((progress.done, resident(me)))
        pids = [int(file.name.split()[1]) for file in (tmp_path / "faults").glob("actor *")]
        if len(pids) == 2:
            actor_bytes.append((progress.done, sum(resident(psutil.Process(pid)) for pid in pids)))

    request = driver.request(tmp_path / "run", actors=2)
    request = replace(
        request, limit=GROUPS * GROUP_SIZE, group_size=GROUP_SIZE, search=replace(request.search, simulations=2)
    )
    with mock.patch.object(run, "Coordinator", partial(Coordinator, evaluator=stub.evaluator(tmp_path / "faults"))):
        assert run_search(request, show=look).complete
    for seen in (driver_bytes, actor_bytes):
        early = [size for done, size in seen if 0.2 < done / (GROUPS * GROUP_SIZE) < 0.4]
        late = [size for done, size in seen if done / (GROUPS * GROUP_SIZE) > 0.8]
        assert early and late and min(late) - min(early) < MOST_GROWTH

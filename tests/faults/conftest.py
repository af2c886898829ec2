"""A Ray cluster on this machine that nodes can join and leave; each module has its own, and none outlives it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import ray
from mutations import remove_guards
from ray.cluster_utils import Cluster

HERE = Path(__file__).resolve().parent
CPUS = 3

remove_guards()


class Machine:
    """A Ray cluster of one node that others join and leave."""

    def __init__(self) -> None:
        # Workers must find the stub; they inherit this from the node that starts them.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS, "include_dashboard": False})
        os.environ["RAY_ADDRESS"] = self.cluster.address

    @contextmanager
    def node(self) -> Iterator[Any]:
        """A machine that joins, and has left at the end."""
        node = self.cluster.add_node(num_cpus=1)
        try:
            yield node
        finally:
            if node in self.cluster.worker_nodes:
                self.cluster.remove_node(node)

    def all_free(self) -> bool:
        """Whether all its resources are free, soon."""
        ray.init(logging_level="ERROR", log_to_driver=False)
        try:
            deadline = time.monotonic() + 30
            while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.2)
            return True
        finally:
            ray.shutdown()


@pytest.fixture(scope="module")
def machine():
    with mock.patch.dict(os.environ):
        machine = Machine()
        yield machine
        ray.shutdown()
        machine.cluster.shutdown()

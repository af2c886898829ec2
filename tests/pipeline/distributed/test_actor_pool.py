"""The pool of actors, on real Ray: every item is answered once, whatever becomes of the actors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import ray

from pipeline.distributed.actor_pool import MAX_ATTEMPTS, ActorPool
from pipeline.distributed.cluster import PoolConfig
from pipeline.errors import UserError

pytestmark = pytest.mark.ray

# A worker has no tests folder to import the class below from.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

TWO = PoolConfig(num_actors=2, cpus_per_actor=1, gpus_per_actor=0.0)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


class Squarer:
    """Squares numbers; some of them are the death of it, once or always."""

    def __init__(self, folder, deadly_once=(), deadly=(), wrong=(), broken=""):
        self.folder, self.deadly_once, self.deadly, self.wrong = Path(folder), deadly_once, deadly, wrong
        self.broken = broken

    def load(self):
        (self.folder / f"loaded-{os.getpid()}").touch()
        if self.broken == "refused":
            raise UserError("there is no such model")
        if self.broken == "dies":
            os._exit(1)

    def work(self, number):
        mark = self.folder / f"died-{number}"
        if number in self.deadly or (number in self.deadly_once and not mark.exists()):
            mark.touch()
            os._exit(1)
        if number in self.wrong:
            raise ValueError(f"{number} is no number")
        return number**2


def squares(folder, numbers, **faults):
    with ActorPool(Squarer, (str(folder), *faults.values()), TWO) as pool:
        return sorted(pool.map(numbers))


def test_actors_are_kept_from_one_map_to_the_next(tmp_path):
    """Catches a model that is loaded anew for every list of items, and more actors than were asked for."""
    with ActorPool(Squarer, (str(tmp_path),), TWO) as pool:
        for _ in range(3):
            assert sorted(pool.map(list(range(7)))) == [(number, number**2) for number in range(7)]
        assert list(pool.map([])) == []
    assert 1 <= len(list(tmp_path.glob("loaded-*"))) <= 2


def test_an_actor_that_dies_is_replaced(tmp_path):
    """Catches an item that is lost with its actor, or answered twice."""
    assert squares(tmp_path, [1, 2, 3, 4], deadly_once=(2, 3)) == [(1, 1), (2, 4), (3, 9), (4, 16)]


def test_an_item_that_kills_every_actor_ends_the_work(tmp_path):
    """Catches a pool that starts actors for ever."""
    with pytest.raises(UserError, match=f"{MAX_ATTEMPTS} actors died over the same work"):
        squares(tmp_path, [1, 2], deadly_once=(), deadly=(2,))


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"deadly_once": (), "deadly": (), "wrong": (2,)}, "failed at its work: ValueError: 2 is no number"),
        ({"deadly_once": (), "deadly": (), "wrong": (), "broken": "refused"}, "^there is no such model$"),
        ({"deadly_once": (), "deadly": (), "wrong": (), "broken": "dies"}, "die while they load the model"),
    ],
)
def test_a_failure_says_its_cause(tmp_path, faults, message):
    """Catches a traceback for a message, one that loses its last line, and a mistake that is tried three times."""
    with pytest.raises(UserError, match=message):
        squares(tmp_path, [1, 2], **faults)
    assert len(list(tmp_path.glob("loaded-*"))) <= 2 * MAX_ATTEMPTS

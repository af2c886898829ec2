"""The three tiers of the tests, by marker: ``plain``, ``tiny`` and ``end_to_end``. Each test is in one of them.

``end_to_end`` runs whole commands, starts Ray or loads SmolLM2, and says so itself (``commands``, ``ray``,
``smollm2``). ``tiny`` works with torch, mostly
on tiny random models. ``plain`` is the rest: plain objects and files.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import settings

# `make check` looks at fewer random inputs than `make test`; a test may ask for more than either.
settings.register_profile("check", max_examples=20, deadline=None)
settings.register_profile("test", max_examples=200, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

TIERS = ("plain", "tiny", "end_to_end")
#: Modules of which a test module that imports one works with models.
_MODEL_MODULES = ("torch", "architectures", "tiny", "pipeline.engine", "router.heads", "router.probes", "router.routed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the marker of its tier."""
    for item in items:
        item.add_marker(tier_of(item))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from looking through all imported libraries again: a twelfth of the tests' time."""
    gc.collect()
    gc.freeze()


def tier_of(item: pytest.Item) -> str:
    """The tier of a test."""
    if any(item.get_closest_marker(name) for name in ("commands", "ray", "smollm2")):
        return "end_to_end"
    module = item.getparent(pytest.Module)
    assert module is not None
    return "tiny" if _uses_models(module.obj) or "engine" in item.path.parts else "plain"


def _uses_models(module: ModuleType) -> bool:
    origins = {getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in vars(module).values()}
    return any(str(origin).startswith(_MODEL_MODULES) for origin in origins)


@pytest.fixture(scope="module")
def local_actors() -> Iterator[None]:
    """Actors in the test's own process instead of Ray's."""
    from local_actors import actors_in_this_process

    with actors_in_this_process():
        yield

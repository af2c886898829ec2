"""Imports run one way, and no module loads a library that it does not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import pipeline
from pipeline.cli.main import COMMANDS
from router.cli.probe import probe

HEAVY = {"torch", "ray", "transformers", "datasets", "pandas", "pyarrow", "matplotlib", "math_verify"}


def loaded_by(statement):
    """The names of all modules that a fresh interpreter has after one statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("module", "may_load"),
    [
        ("pipeline", set()),
        ("pipeline.program", set()),
        ("pipeline.search.actions", set()),
        ("pipeline.search", set()),
        ("pipeline.tasks", set()),
        ("pipeline.storage", set()),
        ("pipeline.model_source", set()),
        ("pipeline.cli.main", set()),
        ("pipeline.shards", {"pyarrow"}),
        ("pipeline.shards.run_folder", {"pyarrow"}),
        ("pipeline.distributed.evaluator", {"ray"}),
        ("pipeline.distributed.coordinator", {"ray", "pyarrow"}),
        ("pipeline.workflows.run_search", {"ray", "pyarrow"}),
    ],
)
def test_heavy_libraries_are_loaded_where_they_are_used(module, may_load):
    """Catches a search that needs torch, a driver without a GPU that needs it, or a slow ``--help``."""
    assert loaded_by(f"import {module}") & HEAVY <= may_load


PROBE_COMMANDS = [f"probe {name}" for name in probe.commands]


@pytest.fixture(scope="module")
def loaded_by_help():
    """The names of the modules that each command's ``--help`` loads, one after the other in one fresh interpreter."""
    program = (
        "import io, json, sys; from contextlib import redirect_stdout\n"
        "from pipeline.cli.main import main\n"
        "new, known = {}, set(sys.modules)\n"
        f"for name in {[*COMMANDS, *PROBE_COMMANDS]!r}:\n"
        "    with redirect_stdout(io.StringIO()):\n"
        "        main([*name.split(), '--help'], standalone_mode=False)\n"
        "    new[name], known = sorted(set(sys.modules) - known), set(sys.modules)\n"
        "print(json.dumps(new))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", [*COMMANDS, *PROBE_COMMANDS])
def test_help_loads_no_framework(name, loaded_by_help):
    """Catches a ``--help`` that takes seconds: what a command needs is imported when it runs."""
    assert not set(loaded_by_help[name]) & HEAVY


def test_the_front_door():
    """Catches a public name that cannot be imported, or a missing one that gives None."""
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipeline.nothing

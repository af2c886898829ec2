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


def output_of(program):
    """What a fresh interpreter prints that runs a program."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


#: Modules that load none of the heavy libraries.
LIGHT_MODULES = (
    "pipeline",
    "pipeline.program",
    "pipeline.search.actions",
    "pipeline.search",
    "pipeline.tasks",
    "pipeline.storage",
    "pipeline.model_source",
    "pipeline.cli.main",
)


@pytest.fixture(scope="module")
def loaded_by_light_modules():
    """The names of the modules that a fresh interpreter has after importing them one after the other."""
    program = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        f"for name in {LIGHT_MODULES!r}:\n"
        "    importlib.import_module(name)\n"
        "    loaded[name] = sorted(sys.modules)\n"
        "print(json.dumps(loaded))"
    )
    return json.loads(output_of(program))


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_no_heavy_library(module, loaded_by_light_modules):
    """Catches a search that needs torch, or a slow ``--help``."""
    assert not set(loaded_by_light_modules[module]) & HEAVY


@pytest.mark.parametrize(
    ("module", "may_load"),
    [
        ("pipeline.shards", {"pyarrow"}),
        ("pipeline.shards.run_folder", {"pyarrow"}),
        ("pipeline.distributed.evaluator", {"ray"}),
        ("pipeline.distributed.coordinator", {"ray", "pyarrow"}),
        ("pipeline.workflows.run_search", {"ray", "pyarrow"}),
    ],
)
def test_heavy_libraries_are_loaded_where_they_are_used(module, may_load):
    """Catches a driver without a GPU that needs torch."""
    program = f"import json, sys, {module}\nprint(json.dumps(sorted(sys.modules)))"
    assert set(json.loads(output_of(program))) & HEAVY <= may_load


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
    return json.loads(output_of(program))


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

"""Imports run one way, and nobody pays for a library that they do not use."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline

HEAVY = {"torch", "ray", "transformers", "datasets", "pandas", "pyarrow", "matplotlib", "math_verify"}


def loaded_by(statement):
    """The names of all modules that a fresh interpreter has after one statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("module", "may_load"),
    [
        ("pipeline", set()),
        ("pipeline.program", set()),
        ("pipeline.actions", set()),
        ("pipeline.search", set()),
        ("pipeline.tasks", set()),
        ("pipeline.storage", set()),
        ("pipeline.model_source", set()),
        ("pipeline.cli", set()),
        ("pipeline.shards", {"pyarrow"}),
        ("pipeline.run_folder", {"pyarrow"}),
        ("pipeline.evaluator", {"ray"}),
        ("pipeline.coordinator", {"ray", "pyarrow"}),
        ("pipeline.run", {"ray", "pyarrow"}),
    ],
)
def test_heavy_libraries_are_loaded_where_they_are_used(module, may_load):
    """Catches a search that needs torch, a driver without a GPU that needs it, or a slow ``--help``."""
    assert loaded_by(f"import {module}") & HEAVY <= may_load


@pytest.mark.parametrize(
    ("module", "may_import"),
    [
        ("pipeline.program", {"program"}),
        ("pipeline.actions", {"program", "actions"}),
        ("pipeline.storage", {"errors", "storage"}),
        ("pipeline.prior", {"program", "errors", "prior"}),
        ("pipeline.search", {"program", "actions", "errors", "prior", "frontier", "pareto", "search"}),
        ("pipeline.engine", {"program", "errors", "model_source", "engine"}),
        ("pipeline.tasks", {"program", "errors", "storage", "tasks"}),
    ],
)
def test_imports_run_one_way(module, may_import):
    """Catches an engine that knows tasks, a search that knows an engine, and circles between folders."""
    modules = loaded_by(f"import {module}")
    ours = {name.split(".")[1] for name in modules if name.startswith("pipeline.")}
    assert ours <= may_import
    assert "ray" not in modules


def test_the_front_door():
    """Catches a public name that cannot be imported, or a missing one that gives None."""
    for name in pipeline.__all__:
        assert getattr(pipeline, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipeline.nothing


def test_every_folder_of_code_is_installed():
    """Catches a package that tests find in the repository and ``pip install`` leaves out."""
    root = Path(__file__).resolve().parent.parent
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(root) for name in ("pipeline", "router") for file in (root / name).rglob("*.py")}
    assert sorted(listed) == sorted(".".join(folder.parts) for folder in folders)

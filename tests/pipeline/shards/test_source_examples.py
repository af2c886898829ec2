"""The examples of a run, read again: whose code may run for it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from shard_rows import CONFIG, rows

from pipeline.errors import UserError
from pipeline.report.summary import inspect_run
from pipeline.shards.reader import read_paths
from pipeline.shards.run_config import fingerprint
from pipeline.shards.run_folder import RunFolder
from pipeline.shards.source_examples import examples_of
from pipeline.tasks import Example

MODULE = """
from pipeline.tasks import Example, Task
from pipeline.tasks.scoring.exact_match import ExactMatch

def read(request):
    return [Example(id="a", task="", question="1 + 1 =", answer="2")]

TASK = Task(name="own", summary="", read=read, scoring=ExactMatch(max_new_tokens=8), chat=False, needs_data=False)
"""
NAME = "task_of_a_run:TASK"
EXAMPLE = Example(id="a", task=NAME, question="1 + 1 =", answer="2")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run of a user's own task, whose module is nowhere yet; the current folder is another."""
    folder = RunFolder(tmp_path / "run")
    folder.open(replace(CONFIG, task=NAME, data_sha256=fingerprint([EXAMPLE])), provenance={"data": None})
    folder.commit(0, rows("a"))
    folder.close()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield tmp_path / "run"
    sys.modules.pop("task_of_a_run", None)


def test_the_task_is_imported_from_the_current_folder(run, tmp_path):
    """Catches a run of a user's own task that later commands cannot read again."""
    (tmp_path / "here" / "task_of_a_run.py").write_text(MODULE)
    assert examples_of(run) == [EXAMPLE]


def test_nothing_is_imported_from_the_run_folder(run):
    """Catches a run from outside that brings its own code and has it run."""
    (run / "task_of_a_run.py").write_text(MODULE)
    with pytest.raises(UserError, match=f"task '{NAME}' cannot be imported: there is no module"):
        examples_of(run)


def test_reading_rows_imports_nothing(run, tmp_path):
    """Catches a command that has a module run, though it needs no examples."""
    (tmp_path / "here" / "task_of_a_run.py").write_text(MODULE)
    read_paths(run)
    inspect_run(run, Console(file=io.StringIO()))
    assert "task_of_a_run" not in sys.modules


def test_the_action_space_of_a_run_is_not_imported(run, tmp_path):
    """Catches a run that has a second module run, which reading its examples does not need."""
    (tmp_path / "here" / "task_of_a_run.py").write_text(MODULE)
    (tmp_path / "here" / "space_of_a_run.py").write_text("1 / 0")
    stored = json.loads((run / "run.json").read_text())
    stored["settings"]["search.action_space"] = "space_of_a_run:SPACE"
    (run / "run.json").write_text(json.dumps(stored))
    assert examples_of(run) == [EXAMPLE]
    inspect_run(run, Console(file=io.StringIO()))
    assert "space_of_a_run" not in sys.modules

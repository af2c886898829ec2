"""The recipe for a task, followed from docs/extending.md alone."""

from __future__ import annotations

import json

import pytest
from follow_recipe import follow_recipe
from tiny import save_tiny_model

from pipeline.shards import read_paths


@pytest.mark.ray
def test_the_recipe_gives_a_run_that_is_verified(tmp_path):
    """Catches a recipe that stumbles: a task that actors, or later commands, do not find."""
    save_tiny_model(tmp_path / "my-model")
    _, inspected, verified = follow_recipe("A task", tmp_path)
    assert "my_package.my_task:TASK" in inspected
    assert json.loads((tmp_path / "runs" / "claims" / "run.json").read_text())["settings"]["task"] == (
        "my_package.my_task:TASK"
    )
    rows = read_paths(tmp_path / "runs" / "claims")
    assert set(rows.task) == {"my_package.my_task:TASK"}
    assert set(rows.example_id) == {"claims-000000", "claims-000001", "claims-000002"}
    assert set(rows.response) <= {"yes", "no"} and set(rows.answer) == {"yes", "no"}
    assert verified

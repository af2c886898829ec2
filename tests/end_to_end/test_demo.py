"""The demo from its first step to its last, with a tiny model in place of SmolLM2."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from tiny import save_tiny_model, write_questions

from pipeline import tasks
from pipeline.cli import demo
from pipeline.cli.main import main
from router.menu.menu import read_menu
from router.routed.checkpoint import Router

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]


@pytest.fixture
def on_tiny(tmp_path, monkeypatch):
    """Let the name of SmolLM2 mean a tiny model, and arithmetic mean questions of which it has some right."""
    model = str(save_tiny_model(tmp_path / "model"))
    monkeypatch.setattr(demo, "MODEL", model)
    monkeypatch.setattr(demo, "MIN_BUDGET", 0.5)
    arc, file = tasks.TASKS["arc"], write_questions(tmp_path / "questions.jsonl", 96)

    def read(request):
        wanted = slice(48, None) if request.split == "test" else slice(0, 48)
        return arc.read(replace(request, data=str(file), limit=None))[wanted][: request.limit]

    stand_in = replace(arc, name="arithmetic", read=read, needs_data=False)
    monkeypatch.setattr(tasks, "arithmetic_task", lambda options: stand_in)


def test_every_step_ends_well(tmp_path, on_tiny, monkeypatch):
    """Catches a step that is called otherwise than a user calls it: with options that are not read as typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRLLM_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(main, ["demo", "--limit", "12", "--menu-limit", "48", "--held-out", "8"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "layers ran" in result.output
    assert (tmp_path / "runs" / "demo" / "_SUCCESS").exists()
    Router.load(tmp_path / "routers" / "demo")
    # Its last table sets the router beside the base model, on examples of the other split.
    last = result.output.partition("5. Evaluate")[2]
    assert "8 examples" in last and "base" in last and "routed" in last
    evaluation = json.loads((tmp_path / "routers" / "demo" / "evaluation.json").read_text())
    assert evaluation["questions"] == 8
    assert len(read_menu(tmp_path / "menus" / "demo").programs) > 1

"""A menu on real Ray, whose resources one set of actors holds until it is gone."""

from __future__ import annotations

import json

import pytest
from command_line import command
from tiny import save_tiny_model, write_questions

pytestmark = pytest.mark.ray


@pytest.mark.timeout(240)
def test_a_menu_on_all_cores(tmp_path):
    """Catches actors that wait for ever for the cores that the race's actors hold while prompts are read."""
    model = save_tiny_model(tmp_path / "model")
    questions = write_questions(tmp_path / "questions.jsonl", 48)
    features = ("--features", tmp_path / "features")
    menu = tmp_path / "menu"
    text = command(
        *("menu", "--model", model, "--task", "arc", "--data", questions, "--size", 4, "--out", menu, *features)
    )
    assert "identity (the base model)" in text and json.loads((menu / "menu.json").read_text())["finished"]

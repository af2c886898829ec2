"""The recipe for an action space, followed from docs/extending.md alone."""

from __future__ import annotations

import json

import pytest
from follow_recipe import follow_recipe
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.shards import read_paths


@pytest.mark.ray
def test_the_recipe_gives_a_run_of_swapped_layers(tmp_path):
    """Catches a recipe that stumbles: a space that actors do not find, or that a blind prior guides."""
    save_tiny_model(tmp_path / "my-model")
    searched, inspected = follow_recipe("An action space", tmp_path)
    assert "'my_package.my_space:SKIP_OR_SWAP' moves layers" in searched and "without one" in searched
    assert "arithmetic" in inspected
    settings = json.loads((tmp_path / "runs" / "swaps" / "run.json").read_text())["settings"]
    assert settings["search.action_space"] == "my_package.my_space:SKIP_OR_SWAP"
    assert (settings["search.simulations"], settings["calibration"]) == (30, 0)
    programs = [tuple(program) for program in read_paths(tmp_path / "runs" / "swaps").program]
    assert len(programs) == 2 * 31
    assert any(len(program) == NUM_LAYERS and list(program) != sorted(program) for program in programs)
    assert any(len(program) < NUM_LAYERS for program in programs)

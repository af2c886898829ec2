"""The table of action spaces, and spaces from a user's own module."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.prior import Evaluation, features, fit_prior
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import ACTION_SPACES, ActionSpace, get_action_space
from pipeline.search.config import DEFAULTS, PRESETS, PUBLISHED, SearchConfig, search_preset
from pipeline.search.tree import SearchTree

SWAPS = """
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import ActionSpace
from pipeline.search.actions import Edit

def swap(program, max_length):
    edits = []
    for i in range(len(program) - 1):
        layers = list(program.layers)
        layers[i], layers[i + 1] = layers[i + 1], layers[i]
        edits.append(Edit(f"swap {layers[i + 1]} {layers[i]}", LayerProgram(layers, program.num_layers)))
    return edits

SWAP = ActionSpace(name="swap", help="swap two neighbours", edits=swap, keeps_order=False, defaults={"simulations": 7})
WRONG = ActionSpace(name="wrong", help="", edits=swap, keeps_order=False, defaults={"simulation": 7})
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module with an action space in the current folder, which is not on the path."""
    (tmp_path / "own_spaces.py").write_text(SWAPS)
    (tmp_path / "broken_spaces.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "own_spaces"
    sys.modules.pop("own_spaces", None)


def test_a_space_of_ones_own_is_searched(own_module):
    """Catches a space that the settings accept and the tree, or its presets, then do not know."""
    config = search_preset("default", "own_spaces:SWAP")
    assert (config.simulations, config.action_space) == (7, "own_spaces:SWAP")
    tree = SearchTree(num_layers=4, config=config, seed=0)
    while (program := tree.propose()) is not None:
        tree.update(program, correct=True, margin=1.0)
    assert len(tree.verdicts) == 8
    assert {tuple(sorted(program.layers)) for program in tree.verdicts} == {(0, 1, 2, 3)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_spaces:SWOP", "cannot be imported: AttributeError.*SWOP"),
        ("no_such_module:SPACE", "cannot be imported: ModuleNotFoundError"),
        ("broken_spaces:SPACE", "cannot be imported: ZeroDivisionError"),
        ("own_spaces:swap", "is of class function, not ActionSpace"),
        ("own_spaces:", "is not of the form"),
        ("swap", "is unknown; choose one of: cola, drllm; or name your own"),
    ],
)
def test_a_space_that_is_not_there_is_refused_by_name(own_module, name, message):
    """Catches a KeyError or a traceback of importlib where the name is the user's mistake."""
    with pytest.raises(UserError, match=f"--action-space '{name}' {message}"):
        SearchConfig(action_space=name)


def test_presets_of_a_space_that_has_none_are_refused_by_name(own_module):
    """Catches a KeyError for a space without published constants, and a default that no setting takes."""
    with pytest.raises(ValueError, match="preset 'published' has no constants for action space 'own_spaces:SWAP'"):
        search_preset("published", "own_spaces:SWAP")
    with pytest.raises(ValueError, match="preset 'best' is unknown"):
        search_preset("best", "drllm")
    with pytest.raises(ValueError, match=r"sets fields that SearchConfig does not have: simulation$"):
        search_preset("default", "own_spaces:WRONG")


def test_the_prior_cannot_tell_reordered_programs_apart(own_module):
    """Catches a search of reorderings that a prior guides: to the prior they are all the identity program."""
    swapped = LayerProgram((0, 2, 1, 3), 4)
    np.testing.assert_array_equal(features([swapped]), features([LayerProgram.identity(4)]))
    evaluations = [Evaluation(example_id="q", program=LayerProgram((0, 1), 4), correct=True, margin=1.0)]
    prior = fit_prior(evaluations, compare_margins=True)
    config = search_preset("default", "own_spaces:SWAP")
    with pytest.raises(ValueError, match="'own_spaces:SWAP' moves layers"):
        SearchTree(num_layers=4, config=config, seed=0, prior=prior)


def test_the_table_is_the_one_source_of_presets():
    """Catches a space that is named in one table and missing in another."""
    for name, space in ACTION_SPACES.items():
        assert (space.name, get_action_space(name), DEFAULTS[name].action_space) == (name, space, name)
        assert isinstance(space, ActionSpace) and space.help
    assert PRESETS == {"default": DEFAULTS, "published": PUBLISHED} and set(PUBLISHED) <= set(DEFAULTS)

"""The table of action spaces, and spaces from a user's own module."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.prior import Evaluation, features, fit_prior
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import ACTION_SPACES, ActionSpace, check_action_space, get_action_space
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
TEXT = ActionSpace(name="text", help="", edits=swap, keeps_order=False, defaults={"simulations": "30"})
FLAG = ActionSpace(name="flag", help="", edits=swap, keeps_order=False, defaults={"margin_scale": True})

def space(edits, keeps_order=True):
    return ActionSpace(name="", help="", edits=edits, keeps_order=keeps_order)

def doubled(program):
    return LayerProgram(program.layers * 2, program.num_layers)

LONG = space(lambda program, most: [Edit("double", doubled(program)), Edit("double again", doubled(doubled(program)))])
SAME = space(lambda program, most: [Edit("stay", program)])
TWICE = space(lambda program, most: [Edit("cut", program.skip(0)), Edit("leave", program.skip(0))])
NOTHING = space(lambda program, most: None)
BARE = space(lambda program, most: [program.skip(0)])
MOVES = space(swap)
OTHER_DEPTH = space(lambda program, most: [Edit("shrink", LayerProgram((0,), 1))])
FAILS = space(lambda program, most: [Edit("skip", program.skip(99, 1))])
ONE_PARAMETER = space(lambda program: [])
CALLED = space(swap(LayerProgram((0, 1), 2), 4))
LATE = space(lambda program, most: [Edit("double", doubled(program))])
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module with an action space in the current folder, which is not on the path."""
    (tmp_path / "own_spaces.py").write_text(SWAPS)
    (tmp_path / "broken_spaces.py").write_text("1 / 0")
    (tmp_path / "lacking_spaces.py").write_text("import os\nimport no_such_lib")
    (tmp_path / "misspelt_spaces.py").write_text("print(1")
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
        ("own_spaces:SWAPS", "module 'own_spaces' has no 'SWAPS'; did you mean SWAP$"),
        ("no_such_module:SPACE", "cannot be imported: there is no module 'no_such_module'; modules .* on PYTHONPATH$"),
        ("broken_spaces:SPACE", "cannot be imported: broken_spaces.py:1: ZeroDivisionError: division by zero$"),
        ("lacking_spaces:SPACE", "cannot be imported: lacking_spaces.py:2: ModuleNotFoundError: No .* 'no_such_lib'$"),
        ("misspelt_spaces:SPACE", "cannot be imported: misspelt_spaces.py:1: SyntaxError: '\\(' was never closed$"),
        ("own_spaces:swap", "is of class function, not ActionSpace"),
        ("own_spaces:", "is not of the form"),
        ("folder/own_spaces:SWAP", "is not of the form my_package.my_module:NAME"),
        ("own_spaces.py:SWAP", "is not of the form my_package.my_module:NAME"),
        ("swap", "is unknown; choose one of: cola, drllm; or name your own"),
    ],
)
def test_a_space_that_is_not_there_is_refused_by_name(own_module, name, message):
    """Catches a KeyError or a traceback of importlib where the name is the user's mistake."""
    with pytest.raises(UserError, match=f"--action-space '{name}':? {message}"):
        SearchConfig(action_space=name)


def test_an_error_in_an_installed_module_is_located_too(tmp_path, monkeypatch):
    """Catches a message without file and line for a module of one's own that pip has installed."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "installed_spaces.py").write_text("import json\n\njson.loads('{')")
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(UserError, match=r"installed_spaces\.py:3: JSONDecodeError: "):
        get_action_space("installed_spaces:SPACE")


def test_presets_of_a_space_that_has_none_are_refused_by_name(own_module):
    """Catches a KeyError for a space without published constants, and a default that no setting takes."""
    with pytest.raises(ValueError, match="preset 'published' has no constants for action space 'own_spaces:SWAP'"):
        search_preset("published", "own_spaces:SWAP")
    with pytest.raises(ValueError, match="preset 'best' is unknown"):
        search_preset("best", "drllm")
    with pytest.raises(ValueError, match=r"does not have; did you mean simulations$"):
        search_preset("default", "own_spaces:WRONG")


@pytest.mark.parametrize("fields", [{"defaults": [("simulations", 7)]}, {"defaults": None}, {"published": "drllm"}])
def test_constants_that_are_no_mapping_are_refused_when_the_space_is_built(fields):
    """Catches a traceback in ``search_preset`` that does not name the space's field."""
    with pytest.raises(ValueError, match=f"^{next(iter(fields))} must be a mapping such as"):
        replace(ACTION_SPACES["drllm"], **fields)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TEXT", "sets simulations='30', of type str; it must be int$"),
        ("FLAG", "sets margin_scale=True, of type bool; it must be float or None$"),
    ],
)
def test_a_default_of_the_wrong_type_is_refused_by_name(own_module, name, message):
    """Catches a TypeError of the coordinator, which names neither the space nor the field."""
    with pytest.raises(UserError, match=f"--action-space 'own_spaces:{name}' {message}"):
        search_preset("default", f"own_spaces:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LONG", "the edit 'double again' of 0-3 is longer than max_length 8$"),
        ("SAME", "the edit 'stay' of 0-3 leads to the program itself; leave it out$"),
        ("TWICE", "the edit 'leave' of 0-3 leads to 1-3, as the edit 'cut' does; leave one of them out$"),
        ("NOTHING", "the edits of 0-3 must be a list of Edit, found NoneType$"),
        ("BARE", r"the edits of 0-3 must be a list of Edit\(label, program\), found LayerProgram"),
        ("MOVES", "the edit 'swap 0 1' of 0-3 moves layers .*; set keeps_order=False$"),
        ("OTHER_DEPTH", "the edit 'shrink' of 0-3 is for 1 layers, the program for 4$"),
        ("FAILS", "the edits of 0-3 cannot be made: own_spaces.py:32: "),
        ("CALLED", r"edits must be a function, edits\(program, max_length\), found list$"),
        ("ONE_PARAMETER", "edits must be a function of a program and the longest length allowed"),
    ],
)
def test_a_space_that_breaks_the_rules_is_refused_before_a_search(own_module, name, message):
    """Catches programs over the longest length that run, loops and duplicates that waste a search, and tracebacks."""
    with pytest.raises(UserError, match=f"^action space 'own_spaces:{name}': {message}"):
        SearchTree(num_layers=4, config=SearchConfig(action_space=f"own_spaces:{name}"), seed=0)


@pytest.mark.parametrize("name", list(ACTION_SPACES))
def test_the_check_of_a_space_allows_what_the_built_in_spaces_do(own_module, name):
    """Catches a check that takes the repeated blocks of CoLa's space for moved layers."""
    own = replace(ACTION_SPACES[name])
    sys.modules["own_copies"] = module = ModuleType("own_copies")
    module.__dict__["COPY"] = own
    check_action_space("own_copies:COPY", num_layers=6, max_length=12)
    del sys.modules["own_copies"]


def test_an_edit_that_is_too_long_only_later_is_refused_there(own_module):
    """Catches a check of the identity program alone: a doubled program may be doubled only once."""
    tree = SearchTree(num_layers=4, config=SearchConfig(action_space="own_spaces:LATE"), seed=0)
    with pytest.raises(UserError, match="the edit 'double' of 0-3,0-3 is longer than max_length 8"):
        while (program := tree.propose()) is not None:
            tree.update(program, correct=True, margin=1.0)


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

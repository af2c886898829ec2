"""From a menu to a selector to a table, by the commands, with a tiny model and actors in this process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import command
from tiny import NUM_LAYERS, save_tiny_model, write_questions

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router import RoutedCausalLM
from router.heads.selector.choice import MenuChoice
from router.heads.selector.selector_request import SelectorRequest
from router.heads.selector.validation import BASE, SELECTOR, STATIC, Validated
from router.heads.selector.validation_table import describe_selector
from router.menu.matrix import shards_of
from router.routed.checkpoint import Router
from router.training.selector_data import MOST_EXITS, exits_of
from router.training.train_selector import fallback_of

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]

QUESTIONS = 80


def test_the_exits_that_are_tried():
    """Catches a selector that never sees programs which change an early layer, or reads less than it could."""
    programs = [LayerProgram.parse(text, 12) for text in ("0-11", "0,2-11", "0-3,3-11", "0-3,5-11", "0-9,11")]

    def tried(menu, at=None):
        return exits_of(SelectorRequest(menu=Path("menu"), out=Path("out"), exit=at), menu)

    assert tried(programs) == [1, 3, 4, 6]
    assert tried(programs[:4]) == [1, 3, 4], "behind layer 4 there is nothing to choose"
    assert tried(programs, at=2) == [2]
    many = [LayerProgram.identity(40), *(LayerProgram.identity(40).skip(layer) for layer in range(1, 40))]
    assert len(tried(many)) == MOST_EXITS and tried(many)[0] == 1 and tried(many)[-1] == 20
    with pytest.raises(UserError, match="leaves the first 1 of 12 layers"):
        tried([programs[0], LayerProgram.parse("1-11", 12)])


class Playground:
    """A tiny model, and a menu of its programs on questions."""

    def __init__(self, folder):
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        write_questions(folder / "train.jsonl", QUESTIONS)
        write_questions(folder / "test.jsonl", QUESTIONS + 24)
        self.menu = folder / "menu"
        self.make_menu()

    def make_menu(self):
        command(
            *("menu", "--model", self.model, "--task", "arc", "--data", self.folder / "train.jsonl"),
            *("--out", self.menu, "--size", 6, "--features", self.folder / "features"),
        )

    def train(self, name, *options, status=0):
        out = self.folder / name
        text = command(
            *("train", "--menu", self.menu, "--out", out, "--features", self.folder / "features", *options),
            status=status,
        )
        return out, text


@pytest.fixture(scope="module")
def playground(tmp_path_factory, local_actors):
    return Playground(tmp_path_factory.mktemp("playground"))


@pytest.fixture(scope="module")
def selector(playground):
    return playground.train("selector")


def test_a_training_ends_with_what_it_is_worth(playground, selector):
    """Catches a training that says nothing of its baselines, or of which the router cannot be used."""
    out, text = selector
    said = " ".join(text.split())
    methods = ("base", "best static program", "nearest neighbours", "selector", "random choice", "oracle *")
    # The questions have the same four letters: so the labels have their own baselines.
    for method in (*methods, "base, bias removed", "label probe"):
        assert method in said
    assert "The selector chooses among" in said
    assert "It closes" in said or "It is not worth more than the best static program on left-out examples" in said
    stored = json.loads((out / "validation.json").read_text())
    assert {one["method"] for one in stored["methods"]} >= {"base", "selector", "oracle *"}
    lm = RoutedCausalLM.from_pretrained(out)
    assert len(lm.generate(["Which of these?"] * 2, max_new_tokens=3)) == 2
    assert len(lm.last_programs[0]) <= 1.15 * NUM_LAYERS
    router: Any = Router.load(out)
    assert router.head.programs[0].is_identity and len(router.head.programs) > 1
    assert router.made["questions"] == QUESTIONS and router.made["days"]


def test_a_second_training_reads_nothing_and_gives_the_same_bits(playground, selector):
    """Catches states that are computed again, and a training that does not repeat."""
    again, text = playground.train("again")
    assert text.count("All states are in") == 2 and "Reading" not in text
    assert (again / "model.safetensors").read_bytes() == (selector[0] / "model.safetensors").read_bytes()


def test_it_is_evaluated_on_other_examples(playground, selector):
    """Catches an evaluation on the examples of the menu, and one that does not know this kind of router."""
    text = command(
        *("evaluate", "--router", selector[0], "--task", "arc", "--data", playground.folder / "test.jsonl"),
        *("--simulations", 0, "--curve", ""),
    )
    assert f"24 examples of arc, {QUESTIONS} left out: trained on" in text
    results = json.loads((selector[0] / "evaluation.json").read_text())["results"]
    router: Any = Router.load(selector[0])
    programs = set(map(str, router.head.programs))
    [routed] = [result for result in results if result["contender"] == "routed"]
    assert {program for program, _ in routed["answers"].values()} <= programs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--exit", NUM_LAYERS), f"no program of MENU leaves the first {NUM_LAYERS} of {NUM_LAYERS} layers"),
        (("--exit", 0), "--exit must be at least 1"),
        (("--epochs", 3), "--epochs has no effect with --menu; leave it out"),
        (("--data", "elsewhere"), "--data has no effect with --menu; leave it out"),
        (("--head", "early-exit"), "--head early-exit does not go with --menu"),
        (("--base", "nowhere"), "nowhere"),
    ],
)
def test_a_wrong_call_gets_its_message(playground, options, message):
    """Catches a traceback, and an option that is ignored."""
    features = ("--features", playground.folder / "none") if "--base" in options else ()
    _, text = playground.train("wrong", *options, *features, status=2)
    assert message.replace("MENU", str(playground.menu)) in text.replace("\n", " ")
    assert not (playground.folder / "wrong" / "config.json").exists()


def test_holes_are_named_and_filled(playground, selector):
    """Catches a hole that counts as a wrong answer."""
    shards_of(playground.menu)[0].unlink()
    _, text = playground.train("hole", status=2)
    assert "outcomes are missing in" in text and "run the menu command again, which fills them" in text
    playground.make_menu()
    again, _ = playground.train("filled")
    assert (again / "model.safetensors").read_bytes() == (selector[0] / "model.safetensors").read_bytes()


def test_neither_a_menu_nor_runs_are_said(tmp_path):
    """Catches a traceback where nothing says what to train on, and an exit that has no effect."""
    assert "give at least one run folder with --data, or a menu with --menu" in command(
        "train", "--out", tmp_path / "router", status=2
    )
    assert "--exit goes with --menu" in command(
        "train", "--data", tmp_path, "--exit", 3, "--out", tmp_path / "router", status=2
    )
    assert "is no menu" in command("train", "--menu", tmp_path, "--out", tmp_path / "router", status=2)


def test_outcomes_of_its_use_are_trained_on(playground, selector):
    """Catches a file of outcomes that is read and has no effect, and one whose other lines are counted."""
    router: Any = Router.load(selector[0])
    program = str(router.head.programs[1])
    prompts = [f"Which of these is number {number}?" for number in range(300, 340)]
    lines = [{"prompt": prompt, "program": program, "right": True} for prompt in prompts]
    lines += [{"prompt": prompts[0], "program": "0", "right": False}]
    file = playground.folder / "outcomes.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out, text = playground.train("fed", "--feedback", file)
    assert "40 outcomes of" in text and "of programs that are not in the menu: 1" in text
    fed: Any = Router.load(out)
    sure = fed.head.network.covariance.diagonal(dim1=1, dim2=2)[:, -1]
    assert len(sure) == len(fed.head.programs) and sure[1] < sure[0]
    _, text = playground.train("fed-nothing", "--feedback", playground.folder / "nowhere", status=2)
    assert "nowhere cannot be read" in text


def test_a_selector_that_is_worse_has_a_fallback():
    """Catches a selector that loses to one program on left-out examples and answers prompts all the same."""
    program = LayerProgram.parse("0-2,4-5", 6)

    def found(base, static, selector, layers=5.0):
        shares = {BASE: (base, 6.0), STATIC: (static, 5.0), SELECTOR: (selector, layers)}
        return [
            Validated(
                method=method,
                right=right,
                low=0,
                high=1,
                layers=layers,
                gain=right - base,
                gain_low=0,
                gain_high=0,
                won=0,
                lost=0,
                p_value=None,
                p_static=None,
            )
            for method, (right, layers) in shares.items()
        ]

    assert fallback_of(found(0.5, 0.6, 0.7), program, layer_price=0.0) is None
    assert fallback_of(found(0.5, 0.6, 0.6), program, layer_price=0.0) is None
    assert fallback_of(found(0.5, 0.6, 0.55), program, layer_price=0.0) == program
    assert fallback_of(found(0.7, 0.6, 0.55), program, layer_price=0.0) == LayerProgram.identity(6)
    # Layers have a price, in the choice of the fallback and in what is said of the selector.
    assert fallback_of(found(0.5, 0.6, 0.605, layers=6.0), program, layer_price=0.01) == program
    for price, said in ((0.0, "It closes 5 % of the gap"), (0.01, "It is not worth more than the best static program")):
        choice = MenuChoice.of([program], np.ones((2, 1)), caution=0.0, layer_price=price)
        head = SimpleNamespace(choice=choice, programs=[program], exit=2)
        assert said in describe_selector(head, program, found(0.5, 0.6, 0.605, layers=6.0), 0.05)
    assert "It runs 1.00 layers fewer" in describe_selector(head, program, found(0.5, 0.6, 0.595, layers=4.0), -0.05)

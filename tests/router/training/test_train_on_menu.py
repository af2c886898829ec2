"""Per-layer routers from a menu: labels of its matrix, rounds on the routers' own programs, and the judgement."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command_line import command
from tiny import save_tiny_model, write_questions

from pipeline.program import LayerProgram
from pipeline.tasks import Example
from pipeline.tasks.types import Rendering
from router import RoutedCausalLM
from router.menu.example_table import examples_of_menu, read_menu_examples
from router.routed.checkpoint import Router
from router.training.menu_labels import menu_labels

PROGRAMS = [LayerProgram.parse(text, 6) for text in ("0-5", "0-3,5", "0-4,3-5", "0-4,4-5")]


def planted(number=600):
    """Two kinds of examples: the second program suits one of them, the last one the other."""
    rng = np.random.default_rng(0)
    kind = rng.random(number) < 0.5
    chance = np.column_stack(
        [np.full(number, 0.4), np.where(kind, 0.9, 0.1), np.ones(number), np.where(kind, 0.1, 0.8)]
    )
    inputs = np.column_stack([kind + 0.1 * rng.normal(size=number), rng.normal(size=(number, 5))])
    return inputs, (rng.random(chance.shape) < chance).astype(float), kind


def test_labels_are_the_programs_to_expect_most_of():
    """Catches labels by luck, a program that counts cannot say, and shares that belong to another program."""
    inputs, right, kind = planted()
    made = menu_labels(inputs, right, PROGRAMS, known=np.arange(len(right)) > 0, layer_price=0.0)
    # A block that runs twice has no counts, though it is always right.
    assert made.programs == [PROGRAMS[0], PROGRAMS[1], PROGRAMS[3]] and made.places.tolist() == [0, 1, 3]
    assert (made.chosen == np.where(kind, 1, 2)).mean() > 0.97
    np.testing.assert_allclose(made.shares.sum(-1), 1)
    # The second program skips layer 4, the last one repeats it; all run the other layers once.
    likeliest = made.shares[:, 4].argmax(-1)
    assert (likeliest == np.where(kind, 0, 2)).mean() > 0.97
    np.testing.assert_allclose(made.shares[:, [0, 1, 2, 3, 5], 1], 1)
    assert made.shares[:, 4].min() > 0


def test_a_price_shortens_the_labels():
    """Catches a price that reaches neither labels nor shares."""
    inputs, right, _ = planted()
    made = menu_labels(inputs, right, PROGRAMS, known=np.arange(len(right)) > 0, layer_price=0.9)
    assert (made.chosen == 1).all() and (made.shares[:, 4].argmax(-1) == 0).all()


def test_outcomes_on_held_out_examples_decide_no_label():
    """Catches labels that know what they are judged on, and held-out examples without labels that suit them."""
    inputs, right, kind = planted()
    known = np.arange(len(right)) % 5 > 0
    other = np.where(known[:, None], right, 1 - right)
    made, again = (menu_labels(inputs, one, PROGRAMS, known=known, layer_price=0.0) for one in (right, other))
    assert made.chosen.tolist() == again.chosen.tolist()
    np.testing.assert_array_equal(made.shares, again.shares)
    assert (made.chosen == np.where(kind, 1, 2))[~known].mean() > 0.97


def test_an_example_comes_back_whole():
    """Catches a field of an example that a menu forgets."""
    example = Example(
        id="a",
        task="arc",
        question="Größer?",
        answer="B",
        options=("A", "B"),
        renderings=(Rendering(question="Größer? ", answer="A"),),
        prompt="Größer?\n",
        also_accepted=("b",),
    )
    bare = Example(id="b", task="jsonl", question="2", answer="3")
    for one in (example, bare):
        assert Example.from_json(json.loads(json.dumps(one.to_json()))) == one


# -- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def menu(tmp_path_factory, local_actors):
    folder = tmp_path_factory.mktemp("menu")
    model = save_tiny_model(folder / "model")
    write_questions(folder / "train.jsonl", 80)
    command(
        *("menu", "--model", model, "--task", "arc", "--data", folder / "train.jsonl", "--permutations", 2),
        *("--out", folder / "menu", "--size", 6, "--features", folder / "features"),
    )
    return folder / "menu"


def train(menu, name, *options, status=0):
    out = menu.parent / name
    given = ("--head", "per-layer", "--features", menu.parent / "features", "--epochs", 2)
    return out, command("train", "--menu", menu, "--out", out, *given, *options, status=status)


@pytest.mark.commands
@pytest.mark.usefixtures("local_actors")
def test_routers_are_trained_in_rounds_and_judged(menu):
    """Catches rounds on the same states, and a training that does not say what its router is worth."""
    out, text = train(menu, "per-layer", "--layer-price", 0.05)
    said = " ".join(text.split())
    assert re.search("The labels of 7[0-9] examples, from", said) and "held-out examples:" in said
    router = Router.load(out)
    if "Round 1 of 2" in said:
        assert "Round 2 of 2" in said and router.head.name == "per-layer"
    assert router.made["menu"] == str(menu) and router.made["judgement"]["examples"] > 0
    lm = RoutedCausalLM.from_pretrained(out)
    assert len(lm.generate(["Which of these?"], max_new_tokens=3)) == 1
    read = examples_of_menu(read_menu_examples(menu))
    assert len(read) == 80 and all(len(one.renderings) == 1 and one.prompt for one in read)


@pytest.mark.commands
@pytest.mark.usefixtures("local_actors")
def test_no_record_of_an_older_router_stays(menu):
    """Catches the curves of one training beside the weights of another."""
    out, _ = train(menu, "replaced")
    (out / "metrics.jsonl").write_text("")
    (out / "tensorboard").mkdir(exist_ok=True)
    (out / "tensorboard" / "events").write_text("")
    command("train", "--menu", menu, "--out", out, "--features", menu.parent / "features", "--overwrite")
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert files == {"config.json", "model.safetensors", "README.md", "validation.json"}
    train(menu, "replaced", "--overwrite")
    assert not (out / "validation.json").exists()


@pytest.mark.commands
@pytest.mark.usefixtures("local_actors")
def test_labels_that_are_all_alike_give_the_best_program(menu):
    """Catches a training that ends with nothing where there is nothing to learn."""
    out, text = train(menu, "alike", "--layer-price", 3)
    said = " ".join(text.split())
    assert "There is nothing to learn: every label is the program" in said and "The router runs the program" in said
    router = Router.load(out)
    assert router.head.name == "static" and router.head.least_layers < 6


@pytest.mark.commands
@pytest.mark.usefixtures("local_actors")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--head", "early-exit"), "--head early-exit does not go with --menu"),
        (("--exit", 2), "--exit has no effect with --menu --head per-layer"),
        (("--data", "elsewhere"), "--data has no effect with --menu --head per-layer"),
        (("--rounds", -1), "--rounds must not be below 0"),
        (("--held-out", 0.999999), "examples are too few"),
    ],
)
def test_a_wrong_call_gets_its_message(menu, options, message):
    """Catches a traceback, and an option that is ignored."""
    _, text = train(menu, "wrong", *options, status=2)
    assert message in " ".join(text.split())
    assert not (menu.parent / "wrong" / "config.json").exists()

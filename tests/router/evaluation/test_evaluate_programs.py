"""Single programs on held-out examples, by the command, with a tiny model and actors in this process."""

from __future__ import annotations

import json

import pytest
from command_line import command
from tiny import save_tiny_model, write_questions

from pipeline.significance import mcnemar

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]


@pytest.fixture(scope="module")
def files(tmp_path_factory, local_actors):
    folder = tmp_path_factory.mktemp("programs")
    save_tiny_model(folder / "model")
    write_questions(folder / "few.jsonl", 40)
    write_questions(folder / "more.jsonl", 64)
    return folder


def evaluate(files, *options, status=0):
    return command("evaluate", "--task", "arc", "--data", files / "more.jsonl", *options, status=status)


def test_programs_are_compared_with_the_base_model(files):
    """Catches a program that answers other examples than the base model, and p-values as if it were the only one."""
    out = files / "results"
    programs = ("0-3,5", "0-1,3-5", "0-5,5")
    text = evaluate(
        files, "--model", files / "model", *(word for one in programs for word in ("--program", one)), "--out", out
    )
    assert "p-values are corrected for 3 programs (Holm)." in text and "fall back" not in text
    stored = json.loads((out / "evaluation.json").read_text())
    results = {result["contender"]: result for result in stored["results"]}
    assert list(results) == ["base", *programs] and stored["questions"] == 64
    base = [right for _, right in results["base"]["answers"].values()]
    raw = {}
    for program in programs:
        assert {ran for ran, _ in results[program]["answers"].values()} == {program}
        right = [right for _, right in results[program]["answers"].values()]
        lost, won, raw[program] = mcnemar(base, right)
        assert (results[program]["lost"], results[program]["won"]) == (lost, won)
        assert results[program]["accuracy"] == pytest.approx(sum(right) / 64)
    smallest = min(raw, key=raw.__getitem__)
    assert results[smallest]["p_value"] == pytest.approx(min(1.0, 3 * raw[smallest]))
    assert (out / "evaluation.png").exists()


def test_a_menus_front_is_judged_on_other_examples_than_its_own(files):
    """Catches a front that is judged where it was chosen."""
    menu = files / "menu"
    command(
        *("menu", "--model", files / "model", "--task", "arc", "--data", files / "few.jsonl", "--out", menu),
        *("--size", 4, "--features", files / "features"),
    )
    text = evaluate(files, "--menu", menu, "--out", files / "of-menu")
    assert "24 examples of arc, 40 left out: trained on" in text
    stored = json.loads((files / "of-menu" / "evaluation.json").read_text())
    front = [one for one in json.loads((menu / "menu.json").read_text())["programs"] if one["on_front"]]
    assert {result["contender"] for result in stored["results"][1:]} == {
        one["program"] for one in front if one["program"] != "0-5"
    }
    assert "none of the 40 examples is left" in command(
        "evaluate", "--task", "arc", "--data", files / "few.jsonl", "--menu", menu, status=2
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give a router with --router, a menu with --menu, or a program with --program"),
        (("--program", "0-3"), "--program needs its --model"),
        (("--menu", "MODEL", "--model", "MODEL"), "--model goes with --program; say with --base where"),
        (
            ("--program", "0-9", "--model", "MODEL"),
            "is no range of layers 0 to 5",
        ),
        (("--program", "0-3", "--menu", "MENU"), "--menu and --program are evaluated by two calls"),
        (("--program", "0-3", "--model", "MODEL", "--budget", 0.9), "--budget goes with --router"),
        (("--menu", "MODEL"), "is no menu: it has no menu.json"),
        (("--program", "0-3", "--model", "nowhere/at/all"), "cannot be found"),
    ],
)
def test_a_wrong_call_gets_its_message(files, options, message):
    """Catches a traceback, and an option that has no effect."""
    words = [files / "model" if word == "MODEL" else word for word in options]
    assert message in evaluate(files, *words, status=2)

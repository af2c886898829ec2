"""From a task, or a run, to a menu, by the command that users type, with a tiny model and actors in this process."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from command_line import command
from documents import REPOSITORY, blocks
from tiny import NUM_LAYERS, save_tiny_model, write_questions

from pipeline.distributed import actor_pool
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router.menu import matrix_actor
from router.menu.example_table import read_menu_examples
from router.menu.matrix import Matrix, read_matrix, shards_of
from router.menu.menu import read_menu

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]

QUESTIONS, SIZE = 60, 5


class Playground:
    """A tiny model, questions, and the command of a menu."""

    def __init__(self, folder):
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        self.questions = write_questions(folder / "questions.jsonl", QUESTIONS)

    def menu(self, name, *options, status=0):
        out = self.folder / name
        text = command(
            *("menu", "--model", self.model, "--task", "arc", "--data", self.questions, "--out", out, "--size", SIZE),
            *("--features", self.folder / "features", "--budget", 1.2, "--min-budget", 0.6, *options),
            status=status,
        )
        return out, text


@pytest.fixture(scope="module")
def playground(tmp_path_factory, local_actors):
    return Playground(tmp_path_factory.mktemp("playground"))


@pytest.fixture(scope="module")
def made(playground):
    return playground.menu("menu")


def test_a_menu_holds_the_front_and_what_others_gain_from(made):
    """Catches a menu without the base model, with a program outside the budgets, or with holes in its matrix."""
    out, text = made
    menu = read_menu(out)
    programs = [one.program for one in menu.programs]
    assert programs[0].is_identity and 2 <= len(programs) <= SIZE and len(set(programs)) == len(programs)
    assert all(0.6 * NUM_LAYERS <= len(program) <= 1.2 * NUM_LAYERS for program in programs)
    assert any(one.on_front for one in menu.programs)
    frame = read_matrix(out)
    table = frame.pivot(index="example_id", columns="program", values="right")[[str(one) for one in programs]]
    assert table.shape == (QUESTIONS, len(programs)) and not table.isna().any().any()
    num_held_out = menu.settings.num_held_out
    assert menu.settings.num_examples == QUESTIONS and 4 <= num_held_out <= 24
    held_out = frame[frame.place >= QUESTIONS - num_held_out].groupby("program").right.mean()
    assert all(abs(one.right - held_out[str(one.program)]) < 1e-6 for one in menu.programs)
    assert "identity (the base model)" in text and "single edits: " in text and "finalists: " in text
    assert (out / "front.png").stat().st_size > 5000
    assert "| identity (the base model) | 6 |" in (out / "README.md").read_text()
    assert len(pd.read_parquet(out / "matrix")) == menu.notes["evaluations"]
    examples = read_menu_examples(out)
    assert list(examples.example_id) == read_ids(out) and examples.prompt.str.startswith("Question: Which").all()


def test_the_documents_python_reads_it(made, tmp_path, monkeypatch):
    """Catches a page whose Python does not read what the command writes."""
    python = [block.text for block in blocks(REPOSITORY / "docs" / "menus.md") if block.language == "python"]
    [block] = [text for text in python if "read_parquet" in text]
    (tmp_path / "menus").mkdir()
    (tmp_path / "menus" / "sums").symlink_to(made[0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["by_program"]["count"].max() == QUESTIONS


def test_what_programs_and_prompts_share_runs_once(made):
    """Catches a matrix that costs as much as separate runs: programs share layers, and prompts share tokens."""
    notes = read_menu(made[0]).notes
    assert 0 < notes["tokens_run"] < 0.6 * notes["tokens_of_separate_runs"]


def test_an_interrupted_race_goes_on_where_it_stopped(playground, made, monkeypatch):
    """Catches outcomes that are computed again, and a race that ends otherwise than one that was not interrupted."""
    work, calls = matrix_actor.MatrixActor.work, []

    def counted(self, item, *, most=None):
        calls.append(len(item.chunk))
        if most is not None and len(calls) > most:
            raise KeyboardInterrupt
        return work(self, item)

    monkeypatch.setattr(matrix_actor.MatrixActor, "work", lambda self, item: counted(self, item, most=9))
    out, text = playground.menu("interrupted", status=1)
    assert "Stopped. Outcomes that were computed are kept" in text
    kept = Matrix(out, read_ids(made[0]), num_layers=NUM_LAYERS).evaluations
    assert kept == sum(calls[:9])
    with pytest.raises(UserError, match="has not ended; run the same menu command again"):
        read_menu(out)
    calls.clear()
    monkeypatch.setattr(matrix_actor.MatrixActor, "work", counted)
    _, text = playground.menu("interrupted")
    assert f"{kept} known already" in text
    assert sum(calls) == read_menu(made[0]).notes["evaluations"] - kept
    assert read_menu(out).programs == read_menu(made[0]).programs


def read_ids(out):
    """The ids of a menu's examples, in the order of the race."""
    return list(read_matrix(out).drop_duplicates("place").example_id)


def test_a_hole_is_filled(playground, made, monkeypatch):
    """Catches a shard that was deleted and stays away, and a finished menu that is raced again."""
    out, _ = made
    gone = shards_of(out)[2]
    rows = len(pd.read_parquet(gone))
    gone.unlink()
    work, calls = matrix_actor.MatrixActor.work, []

    def counted(self, item):
        calls.append(len(item.chunk))
        return work(self, item)

    monkeypatch.setattr(matrix_actor.MatrixActor, "work", counted)
    playground.menu("menu")
    assert gone.exists() and sum(calls) == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", 4), "menu of other settings (size: 5 there, 4 here)"),
        (("--seed", 1), "menu of other settings (data_sha256: "),
        (("--size", 1), "--size must be at least 2"),
        (("--min-budget", 1.1), "--min-budget 1.1 must be at most 1"),
        (("--evaluations", 20), "--evaluations 20 is too low"),
        (("--limit", 3), "3 examples are too few"),
        (("--questions", "elsewhere.jsonl"), "--questions goes with a run"),
        (("--task", "arithmetic"), "leave --data out"),
        (("--dtype", "float31"), "dtype"),
    ],
)
def test_a_wrong_call_gets_its_message(playground, made, options, message):
    """Catches a traceback, a menu that is overwritten by another, and a race that fails only at its end."""
    before = (made[0] / "menu.json").read_bytes()
    _, text = playground.menu("menu", *options, status=2)
    assert message in text
    assert (made[0] / "menu.json").read_bytes() == before


def test_neither_a_task_nor_a_run_is_said(playground, tmp_path):
    """Catches a traceback where nothing says what the menu is of."""
    assert "give a run folder with --data, or a task" in command("menu", "--out", tmp_path / "menu", status=2)
    assert "--task needs a --model" in command("menu", "--task", "arc", "--out", tmp_path / "menu", status=2)
    text = command("menu", "--data", tmp_path, "--out", tmp_path / "menu", status=2)
    assert "run.json" in text
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    _, text = playground.menu(tmp_path / "other", status=2)
    assert "is no menu" in text and list((tmp_path / "other").iterdir()) == [tmp_path / "other" / "thesis.txt"]


def test_a_menu_of_a_run_has_its_model_and_its_programs(playground):
    """Catches a menu of another model than the run's, and programs of the search that do not race."""
    run = playground.folder / "run"
    command(
        *("search", "--model", playground.model, "--task", "arc", "--data", playground.questions, "--out", run),
        *("--simulations", 12, "--keep", "all", "--calibration", 0, "--limit", 40),
    )
    out = playground.folder / "of-run"
    text = command(
        *("menu", "--data", run, "--out", out, "--size", 4, "--features", playground.folder / "features"),
    )
    menu = read_menu(out)
    stored = json.loads((run / "run.json").read_text())["settings"]
    assert menu.settings.base.revision == stored["model.revision"] and menu.settings.num_examples == 40
    assert "combinations: " in text
    assert LayerProgram.identity(NUM_LAYERS) == menu.programs[0].program
    for options in (("--split", "test"), ("--permutations", 2)):
        assert f"{options[0]} goes with --task" in command("menu", "--data", run, "--out", out, *options, status=2)


def test_actors_that_fail_are_named(playground, monkeypatch):
    """Catches a traceback of an actor."""

    def fail(self, item):
        raise MemoryError("no room")

    monkeypatch.setattr(matrix_actor.MatrixActor, "work", fail)
    assert actor_pool.MAX_ATTEMPTS
    _, text = playground.menu("failing", status=2)
    assert "an actor failed at its work: MemoryError: no room" in text

"""The search command with actors in this process: what it takes up, sets aside and refuses."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from command_line import command
from search_bench import SearchBench, files_found

from pipeline.shards.reader import read_paths
from pipeline.shards.run_folder import RunFolder

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]


@pytest.fixture(scope="module")
def bench(tmp_path_factory, local_actors):
    return SearchBench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def searched(bench):
    """A run of all questions."""
    out = bench.folder / "searched"
    command(*bench.arguments(out, actors=2))
    return out


def test_a_prior_from_another_run_guides_every_question(bench, searched):
    """Catches a prior that is taken and not used, or a run that does not say which one it went by."""
    out = bench.folder / "guided"
    words = bench.arguments(out, actors=2)
    at = words.index("--calibration")
    words[at : at + 2] = ["--prior", str(searched), "--limit", "4"]
    command(*words)
    assert (out / "prior.safetensors").read_bytes() == (searched / "prior.safetensors").read_bytes()
    assert not (out / "calibration").exists()
    without_prior, guided = read_paths(searched), read_paths(out)
    without_prior = without_prior[without_prior.example_id.isin(guided.example_id)]
    assert guided.program.map(tuple).tolist() != without_prior.program.map(tuple).tolist()


def test_other_settings_are_refused_before_anything_is_touched(bench, searched):
    """Catches two runs mixed in one folder; the message names the setting and both values."""
    before = files_found(searched)
    said = command(*bench.arguments(searched, actors=1), "--seed", "4", status=2)
    assert "--seed: 3 there, 4 now" in said
    assert files_found(searched) == before and (searched / "_SUCCESS").exists()


def test_a_model_outside_the_contract_is_named(bench):
    """Catches a traceback from inside an actor where a sentence would do."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = bench.folder / "gpt2"
    shutil.copytree(bench.model, folder)
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=257)).save_pretrained(folder)
    words = bench.arguments(bench.folder / "gpt2-run", actors=1)
    words[words.index("--model") + 1] = str(folder)
    assert "GPT2LMHeadModel" in command(*words, status=2)


BROKEN_SPACE = """
from pipeline.search.action_spaces import ActionSpace
from pipeline.search.actions import Edit

STAY = ActionSpace(name="stay", help="", edits=lambda program, most: [Edit("stay", program)], keeps_order=True)
"""


def test_an_action_space_that_breaks_the_rules_ends_the_search_at_once(bench, tmp_path, monkeypatch):
    """Catches a space whose first example fails in every actor: a run that sets all examples aside, one by one."""
    (tmp_path / "broken_space.py").write_text(BROKEN_SPACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    said = command(*bench.arguments(tmp_path / "run", actors=1), "--action-space", "broken_space:STAY", status=2)
    assert "action space 'broken_space:STAY': the edit 'stay' of 0-5 leads to the program itself" in said
    assert not (tmp_path / "run" / "failed").exists()
    said = command(*bench.arguments(tmp_path / "run", actors=1), "--simulations", "5", "--limit", "2")
    assert "Nothing is committed in" in said and len(read_paths(tmp_path / "run").example_id.unique()) == 2


def test_a_question_that_does_not_fit_is_set_aside(bench):
    """Catches a question beyond the model's context that is searched all the same, or takes its group with it."""
    lines = bench.data.read_text().splitlines()[:4]
    lines[1] = lines[1].replace("Which of these", "Which of these, " + "and think it over well, " * 40)
    data = bench.folder / "long.jsonl"
    data.write_text("\n".join(lines))
    out = bench.folder / "long"
    words = [*bench.arguments(out, actors=1), "--simulations", "5"]
    words[words.index("--data") + 1] = str(data)
    for _ in ("first", "again"):
        assert "1 examples were set aside" in command(*words, status=1)
        assert "the model reads 512" in (out / "failed" / "group-000000.jsonl").read_text()
        assert sorted(read_paths(out).example_id.unique()) == ["tiny-00", "tiny-02", "tiny-03"]
        assert not (out / "_SUCCESS").exists()
    said = command("inspect", out)
    assert "3 of 4 examples; 1 set aside: ValueError: " in said and "no other is left to search" in said


def test_inspect_says_how_a_run_goes_on(bench, tmp_path, monkeypatch):
    """Catches a command that cannot be pasted, and one that the run then refuses."""
    out = tmp_path / "a run"
    words = [*bench.arguments(out, actors=1), "--simulations", "5", "--limit", "6"]
    with monkeypatch.context() as patched:
        commits = iter([True])
        commit = RunFolder.commit

        def interrupted(*arguments, **options):
            if next(commits, None) is None:
                raise KeyboardInterrupt
            return commit(*arguments, **options)

        patched.setattr(RunFolder, "commit", interrupted)
        command(*words, status=1)
    said = command("inspect", out)
    assert "2 of 6 examples; go on with: drllm-pipeline search" in said
    [line] = [line for line in said.splitlines() if "go on with" in line]
    typed = shlex.split(line.partition("go on with: drllm-pipeline ")[2])
    assert typed == list(map(str, words))
    with monkeypatch.context() as patched:
        began = Path.cwd()
        patched.chdir(tmp_path)
        assert f"; go on, in {began}, with: drllm-pipeline search" in command("inspect", out).replace("\n", "")
    command(*typed)
    assert "complete" in command("inspect", out) and (out / "_SUCCESS").exists()

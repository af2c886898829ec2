"""Own rows through whole commands: what is said before a search, what a run keeps, and how an old run goes on."""

from __future__ import annotations

import json

import pytest
from command_line import command
from tiny import save_tiny_model

from pipeline.engine import FrozenModel
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_paths, read_settings
from pipeline.tasks.rows import flaw_of

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]

#: Tokens of an answer; the tiny model ends no line by itself, so a line end is among its first ones.
TOKENS = 24


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny model, and rows whose answers it gives, but for a full stop."""
    folder = tmp_path_factory.mktemp("own")
    model = FrozenModel.load(str(save_tiny_model(folder / "model")), device="cpu", dtype="float32")
    prompts = [f"{number} = " for number in range(300)]
    written = model.generate(
        [model.tokenizer(prompt).input_ids for prompt in prompts],
        [LayerProgram.identity(model.num_layers)] * len(prompts),
        max_new_tokens=TOKENS,
    )
    rows = []
    for prompt, ids in zip(prompts, written):
        line, end, _ = model.tokenizer.decode(ids, skip_special_tokens=True).lstrip().partition("\n")
        if (end or ids[-1] in model.end_tokens) and line.strip() and flaw_of(line) is None:
            rows.append({"question": prompt, "gold": ["?!", f" {line.strip().upper()}."]})
    assert len(rows) >= 2, "no answer of the tiny model ends"
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:8]))
    return folder


def search(files, out, *others, status=0):
    options = "--task jsonl --prompt-column question --answer-column gold --simulations 4 --calibration 0 --actors 1"
    return command(
        *("search", "--model", files / "model", "--data", files / "own.jsonl", "--out", out),
        *(*options.split(), "--max-new-tokens", TOKENS, *others),
        status=status,
    )


@pytest.fixture(scope="module")
def run(files, local_actors):
    """A run by the default rule, and what was said."""
    return files / "run", search(files, files / "run")


def test_the_first_lines_show_answers(run):
    """Catches a search that says nothing of how answers are judged until it ends."""
    out, said = run
    rows = read_paths(out)
    assert rows.baseline_correct.all()
    assert said.index("expected  '?!' or '") < said.index("What was found")
    assert "Warning: the base model is right on nearly every example" in said
    assert read_settings(out)["task_options.match"] == "normalized"


def test_a_wrong_rule_is_noticed_in_the_first_lines(files):
    """Catches a newcomer's hour of search in which every right answer counts as wrong."""
    said = search(files, files / "exact", "--match", "exact")
    assert not read_paths(files / "exact").baseline_correct.any()
    warning = said.index("Warning: the base model is right on nearly no example. --match normalized would call ")
    assert warning < said.index("What was found")


def test_a_run_is_resumed_verified_and_shown_by_its_own_rule(run):
    """Catches commands that read the default columns, or compare to the letter, whatever the run was searched with."""
    out, _ = run
    said = command("verify", out)
    assert said.strip().splitlines()[-1].startswith("0 of ")
    said = command("inspect", out, "--examples", 1)
    assert "expected    ?!" in said and "base model  " in said


def test_an_old_run_goes_on_to_the_letter(files):
    """Catches a run from before there were rules that is refused, or whose rows are then by two rules."""
    out = files / "exact-old"
    search(files, out, "--match", "exact", "--group-size", 1)
    before = read_paths(out)
    assert "task_options.match" not in read_settings(out)  # as in a run from before there was such a setting
    next((out / "manifest").iterdir()).unlink()
    said = search(files, out, "--group-size", 1)
    assert f"{before.example_id.nunique() - 1} of them committed already" in said and "expected" not in said
    assert read_paths(out).equals(before)
    assert "--match: 'exact' there, 'contains' now" in search(
        files, out, "--group-size", 1, "--match", "contains", status=2
    )


def test_a_model_without_a_chat_template_is_refused(files):
    """Catches prompts that are silently asked in plain text."""
    said = search(files, files / "chat", "--chat", status=2)
    assert "the model has no chat template; leave --chat out" in said

"""The options of a task over your own rows, and how a run keeps them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from shard_rows import CONFIG

from pipeline.errors import UserError
from pipeline.shards.source_examples import options_of
from pipeline.tasks import TaskOptions, get_task
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.scoring.matched_line import MatchedLine

CHOSEN = TaskOptions(match="number", chat=True, system="Be brief.", prompt_column="q", answer_column="a")


def test_a_run_gives_its_options_back():
    """Catches an option that later commands do not read: verify would make other prompts than the search."""
    config = replace(CONFIG, task="jsonl", task_options=CHOSEN)
    assert options_of(config.settings()) == CHOSEN


def test_runs_from_before_there_were_options_are_resumed_as_they_were():
    """Catches settings of an old run that a new search does not reproduce, or a run whose old rows were exact."""
    old = replace(CONFIG, task="jsonl", task_options=TaskOptions(match="exact"))
    assert not any("options" in name for name in old.settings())
    assert options_of(old.settings()) == TaskOptions(match="exact")
    assert replace(CONFIG, task="arc").settings() == {**old.settings(), "task": "arc"}
    assert replace(old, task_options=TaskOptions(match="normalized")).run_id != old.run_id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task_options.match": "fuzzy"}, "unknown match 'fuzzy'; choose one of: exact, normalized"),
        ({"task_options.chat": "yes"}, "no valid task_options.chat"),
        ({"task_options.colour": "red"}, "no valid task_options.colour"),
    ],
)
def test_options_that_are_none_are_named(settings, message):
    """Catches a run of a newer release, or a damaged one, whose option is dropped without a word."""
    with pytest.raises(UserError, match=message):
        options_of({"task": "jsonl", **settings})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match": "fuzzy"}, "unknown match 'fuzzy'"),
        ({"system": "Be brief."}, "--system goes with --chat"),
        ({"prompt_column": ""}, "need a name"),
    ],
)
def test_wrong_options_are_refused(options, message):
    """Catches an option without effect, and a word that is no rule."""
    with pytest.raises(UserError, match=message):
        TaskOptions(**options)


def test_options_that_are_left_open_are_those_of_the_run():
    """Catches a resumed run that gets the default of a newer release, and one of another task whose options count."""
    assert TaskOptions().of_run("jsonl", None).match == "normalized"
    assert TaskOptions().of_run("jsonl", {"task": "jsonl"}).match == "exact"
    assert TaskOptions(match="number").of_run("jsonl", {"task": "jsonl"}).match == "number"
    assert TaskOptions().of_run("arithmetic", {"task": "arithmetic"}).kinds == "sums,times-table,two-digit-sums"
    stored = {"task": "arithmetic", "task_options.kinds": "larger"}
    assert TaskOptions().of_run("arithmetic", stored).kinds == "larger"
    assert TaskOptions().of_run("arithmetic", {"task": "jsonl", "task_options.match": "number"}).kinds is not None
    assert TaskOptions().of_run("arc", None) == TaskOptions()
    chat = {"task": "jsonl", "task_options.chat": True, "task_options.system": "Be brief."}
    assert TaskOptions().of_run("jsonl", chat) == TaskOptions(match="exact"), "another prompt is another setting"
    assert TaskOptions(kinds="sums, larger").of_run("arithmetic", None).kinds == "sums,larger"
    larger = replace(CONFIG, task="arithmetic", task_options=TaskOptions(kinds="larger"))
    assert larger.settings()["task_options.kinds"] == "larger" and options_of(larger.settings()).kinds == "larger"


def test_only_own_rows_have_options():
    """Catches --match that is taken for any task and changes nothing, and one that changes arithmetic."""
    for task in ("arithmetic", "arc"):
        with pytest.raises(UserError, match=f"--match goes with --task jsonl, not '{task}'"):
            get_task(task, options=TaskOptions(match="contains"))
    assert isinstance(get_task("arithmetic").scoring, ExactMatch)
    assert isinstance(get_task("jsonl", options=TaskOptions(match="exact")).scoring, ExactMatch)
    scoring = get_task("jsonl", max_new_tokens=5).scoring
    assert scoring == MatchedLine(max_new_tokens=5, match="normalized")

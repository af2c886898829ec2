"""From rows of path data sets to labels: which program, which rows are left out, which runs go together."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from shard_rows import CONFIG, rows

from pipeline.errors import UserError
from pipeline.model_source import ModelSource
from pipeline.shards.run_folder import RunFolder
from router.labels.from_runs import consensus_labels, read_runs, shortest_labels
from router.labels.label_request import LabelRequest
from router.labels.labelled import Labelled, is_held_out
from router.menu.candidates import SearchedRun

FACTS = {"class": "Stub", "num_layers": 3, "chat_template_applied": False, "special_tokens_added": True}


def example(name, *programs, correct=True):
    """An example's rows: right programs by their counts, best first, and the identity's."""
    common = {**rows(name)[0], "prompt": f"prompt of {name}", "is_best": False}
    kept = [
        {
            **common,
            "program": [layer for layer, count in enumerate(counts) for _ in range(count)],
            "counts": list(counts),
            "length": sum(counts),
            "saved_layers": 3 - sum(counts),
            "rank": rank,
            "is_best": rank == 1,
        }
        for rank, counts in enumerate(programs, start=1)
    ]
    if (1, 1, 1) not in programs:
        kept.append(
            {
                **common,
                "program": [0, 1, 2],
                "counts": [1, 1, 1],
                "length": 3,
                "saved_layers": 0,
                "rank": 0,
                "correct": False,
            }
        )
    return kept


def make_run(root, *groups, facts=FACTS, config=CONFIG, provenance=()):
    folder = RunFolder(root)
    folder.open(config, provenance=dict(provenance))
    folder.describe_model(facts)
    for number, group in enumerate(groups):
        folder.commit(number, group)
    folder.close()
    return root


def test_the_dates_of_the_prompts_are_kept(tmp_path):
    """Catches an evaluation that takes a training example for another one, because of the date in its prompt."""
    days = ("2026-01-31", "2026-11-30", "tomorrow")
    runs = [
        make_run(tmp_path / f"{number}", example(f"q{number}", (1, 0, 1)), provenance={"day": day})
        for number, day in enumerate(days)
    ]
    assert read_runs([*runs, make_run(tmp_path / "old", example("old", (1, 0, 1)))]).days == set(days[:2])


def labels_of(runs, *, choice="consensus", price=0.0):
    """The label of each example, by its id."""
    solved = read_runs(runs).solved
    rows = shortest_labels(solved) if choice == "shortest" else consensus_labels(solved, consensus_price=price)
    return {row.example_id: row.counts for row in rows}


def test_the_shortest_or_the_most_common_program_is_the_label(tmp_path):
    """Catches labels that differ from question to question where one program is right on all of them."""
    run = make_run(
        tmp_path / "run",
        [*example("a", (0, 1, 0), (1, 0, 1)), *example("b", (1, 0, 1))],
        [*example("c", (0, 0, 1), (1, 0, 1), (1, 1, 1)), *example("d", (1, 0, 1), (1, 2, 1))],
    )
    shortest = labels_of([run], choice="shortest")
    assert shortest == {"a": (0, 1, 0), "b": (1, 0, 1), "c": (0, 0, 1), "d": (1, 0, 1)}
    assert set(labels_of([run]).values()) == {(1, 0, 1)}
    found = read_runs([run])
    assert found.num_layers == 3 and found.add_special_tokens and found.base.revision == "sha256:0"
    [first, *_] = consensus_labels(found.solved, consensus_price=0.0)
    assert first.prompt == "prompt of a" and str(first.program) == "0,2"


def test_a_price_moves_the_consensus_away_from_the_base_model(tmp_path):
    """Catches labels that are the identity wherever it is right, and a price that breaks a right answer."""
    whole, shorter = (1, 1, 1), (1, 0, 1)
    either = [*example("a", whole, shorter), *example("b", whole, shorter), *example("c", whole)]
    run = make_run(tmp_path / "run", [*either, *example("d", whole), *example("e", (0, 1, 1), whole)])
    assert set(labels_of([run]).values()) == {whole}
    priced = {"a": shorter, "b": shorter, "c": whole, "d": whole, "e": whole}
    assert labels_of([run], price=1.0) == priced, "what hardly anybody shares stays too dear"
    assert labels_of([run], price=2.0) == {**priced, "e": (0, 1, 1)}
    for wrong in (-1.0, math.inf, math.nan):
        for name in ("layer_price", "consensus_price"):
            option = f"--{name.replace('_', '-')}"
            with pytest.raises(UserError, match=f"{option} must not be below 0"):
                LabelRequest(data=(run,), **{name: wrong})


def test_what_routers_cannot_say_is_left_out_and_counted(tmp_path):
    """Catches questions that vanish: without a right program, or only with ones that counts cannot say."""
    backwards = example("c", (1, 0, 1))
    backwards[0].update(program=[2, 0], counts=None)
    run = make_run(
        tmp_path / "run",
        [*example("a", (3, 0, 0), (1, 2, 0)), *example("b", correct=False), *backwards, *example("d", (3, 1, 1))],
    )
    data = read_runs([run])
    assert labels_of([run]) == {"a": (1, 2, 0)}, "the next program that can be said"
    assert data.left_out == {"no right program was found": 1, "counts cannot say their programs": 2}


def test_runs_of_one_model_go_together(tmp_path):
    """Catches a question that two runs searched and that is trained on twice, or a run that is forgotten."""
    first = make_run(tmp_path / "one", example("a", (1, 1, 1)), example("b", (1, 0, 1)))
    second = make_run(tmp_path / "two", example("a", (1, 0, 1)), example("c", (1, 0, 1)))
    assert labels_of([first, second], choice="shortest") == dict.fromkeys("abc", (1, 0, 1))


@pytest.mark.parametrize(
    ("facts", "model", "named"),
    [
        ({**FACTS, "num_layers": 4}, None, "num_layers: 3 in .*one, 4 in .*two"),
        (FACTS, ModelSource(name="another", location="there", revision="sha256:1"), "stub and another"),
        ({**FACTS, "special_tokens_added": False}, None, "add_special_tokens"),
    ],
)
def test_runs_of_different_models_are_refused_by_name(tmp_path, facts, model, named):
    """Catches routers of one model that learn from another's hidden states."""
    first = make_run(tmp_path / "one", example("a", (1, 0, 1)))
    config = CONFIG if model is None else replace(CONFIG, model=model)
    second = make_run(tmp_path / "two", example("b", (1, 0, 1)), facts=facts, config=config)
    with pytest.raises(UserError, match=f"(?s){named}"):
        read_runs([first, second])


def test_runs_whose_questions_were_asked_in_other_numbers_of_ways_are_refused(tmp_path):
    """Catches lucky guesses that come back as labels, through a run that asked each question once."""
    once = make_run(tmp_path / "once", example("a", (1, 0, 1)))
    strict = [{**row, "correct_as_asked": True} for row in example("b", (1, 0, 1))]
    runs = [make_run(tmp_path / name, strict, config=replace(CONFIG, permutations=4)) for name in ("four", "more")]
    assert len(read_runs(runs).solved) == 1
    with pytest.raises(UserError, match=r"once was searched with --permutations 1, .*four with 4: .* luck"):
        read_runs([once, runs[0]])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("task", None), ("task", ["arithmetic"]), ("limit", "x"), ("max_new_tokens", "x"), ("data_sha256", None)],
)
def test_a_run_that_does_not_say_its_questions_is_named(tmp_path, setting, value):
    """Catches a traceback of a training on a run whose settings lack something, or have it of another type."""
    run = make_run(tmp_path / "run", [*example("a", (1, 0, 1)), *example("b", (1, 0, 1))])
    stored = json.loads((run / "run.json").read_text())
    stored["settings"][setting] = value
    (run / "run.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=f"cannot be read again .run.json holds no valid {setting}"):
        SearchedRun.read(run)


def test_runs_that_teach_nothing_are_refused(tmp_path):
    """Catches a training that fails later, at its first empty batch."""
    empty = make_run(tmp_path / "empty")
    with pytest.raises(UserError, match="nothing is committed yet"):
        read_runs([empty])
    with pytest.raises(UserError, match="no right program was found: 1"):
        read_runs([make_run(tmp_path / "wrong", example("a", correct=False))])
    with pytest.raises(UserError, match="no run folder"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="choose one of"):
        LabelRequest(data=(empty,), labels="longest")
    stored = json.loads((empty / "run.json").read_text())
    del stored["loaded_model"]
    (empty / "run.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="holds no"):
        read_runs([empty])


def test_a_question_is_held_out_wherever_it_stands():
    """Catches a split by position, which puts one question on both sides of it when runs are added."""
    made = [Labelled(example_id=str(n), task="t", prompt=f"prompt {n}", counts=(1,)) for n in range(2000)]
    out = [row for row in made if is_held_out(row, 0.2)]
    assert 320 < len(out) < 480
    renamed = [Labelled(example_id="x", task="u", prompt=row.prompt, counts=(0,)) for row in out]
    assert all(is_held_out(row, 0.2) for row in renamed)
    assert [row for row in made if is_held_out(row, 0.2, seed=1)] != out

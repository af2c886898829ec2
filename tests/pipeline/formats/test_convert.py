"""From one format to another: no program and no verdict is lost, and what cannot come along is said."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from shard_rows import CONFIG, rows
from tiny import NUM_LAYERS as DEPTH
from tiny import save_tiny_model
from upath import UPath

from pipeline.cli.main import main
from pipeline.errors import UserError
from pipeline.formats.convert import convert as run_convert
from pipeline.formats.convert_request import ConvertRequest
from pipeline.formats.path_data import PathData, SearchedExample, TriedProgram
from pipeline.formats.polar import read_polar, write_polar
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_paths
from pipeline.shards.run_folder import RunFolder
from pipeline.shards.schema import SCHEMA

NUM_LAYERS = 4
IDENTITY = [0, 1, 2, 3]


def convert(*arguments, status=0):
    result = CliRunner().invoke(main, ["convert", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def said(run):
    """Every program and verdict of a run, by question."""
    frame = read_paths(run)
    keys = zip(
        frame.example_id, frame.task, frame.prompt, frame.answer, frame.program.map(lambda p: tuple(map(int, p)))
    )
    return dict(zip(keys, zip(frame.correct, frame.baseline_correct, frame["rank"], frame.is_best)))


@pytest.fixture
def run(tmp_path):
    """A run with right and wrong programs, repeats, and programs that counts cannot say."""
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, provenance={})
    for number in range(2):
        kept = rows(f"q-{number}")
        wrong = {**kept[0], "correct": False, "score": -0.25, "is_best": False, "rank": 0}
        kept.append({**wrong, "program": [2, 0], "counts": None})
        kept.append({**wrong, "program": [0, 1, 1, 2], "counts": [1, 2, 1], "length": 4, "saved_layers": -1})
        folder.commit(number, kept)
    folder.close()
    return folder.root


def test_a_round_trip_keeps_every_program_and_verdict(run, tmp_path):
    """Catches a wrong program that is dropped, a verdict that changes sides, and a margin that is lost."""
    convert("--from", "run", "--to", "polar", run, tmp_path / "out.json")
    convert("--from", "polar", "--to", "run", tmp_path / "out.json", tmp_path / "back")
    assert said(tmp_path / "back") == said(run) and len(said(run)) == len(read_paths(run))
    before, after = (
        read_paths(folder).sort_values(["example_id", "length", "score"]) for folder in (run, tmp_path / "back")
    )
    for column in ("score", "counts", "saved_layers"):
        assert before[column].map(str).tolist() == after[column].map(str).tolist()
    assert (tmp_path / "back" / "_SUCCESS").exists() and "`polar`" in (tmp_path / "back" / "README.md").read_text()
    settings = json.loads((tmp_path / "back" / "run.json").read_text())["settings"]
    original = json.loads((run / "run.json").read_text())["settings"]
    assert all(settings[name] == original[name] for name in ("model.name", "model.revision", "dtype", "task"))
    # The same command once more finds everything done.
    convert("--from", "polar", "--to", "run", tmp_path / "out.json", tmp_path / "back")


programs = st.lists(st.integers(0, NUM_LAYERS - 1), min_size=1, max_size=9).map(
    lambda layers: LayerProgram(layers, NUM_LAYERS)
)
scores = st.floats(width=32, allow_infinity=False)


@given(st.lists(st.dictionaries(programs, st.tuples(st.booleans(), scores)), min_size=1, max_size=5), st.booleans())
def test_any_programs_survive_polar(tmp_path_factory, questions, compressed):
    """Catches programs that the format cannot hold: chains, nested repeats, margins that are no numbers."""
    data = PathData(num_layers=NUM_LAYERS, model="m", revision="r", dtype="float32", budget=1.5)
    for number, verdicts in enumerate(questions):
        verdicts.setdefault(LayerProgram.identity(NUM_LAYERS), (True, 0.5))
        tried = [TriedProgram(program=p, correct=correct, score=score) for p, (correct, score) in verdicts.items()]
        data.examples.append(
            SearchedExample(example_id=f"q{number}", task="t", prompt="p\n“”", answer="a", tried=tuple(tried))
        )
    file = tmp_path_factory.mktemp("polar") / ("file.json.gz" if compressed else "file.json")
    write_polar(data, file)
    again = read_polar(file)
    assert not again.left_out
    assert (again.num_layers, again.model, again.revision, again.dtype, again.budget) == (4, "m", "r", "float32", 1.5)

    def everything(found):
        return [
            (q.example_id, q.task, q.prompt, q.answer, {(t.program, t.correct, repr(t.score)) for t in q.tried})
            for q in found.examples
        ]

    assert everything(again) == everything(data)


def test_files_of_polars_own_are_read(tmp_path):
    """Catches fields by other names, samples in other places, and a verdict on the base model that is guessed."""
    samples = [
        {"question": "a?", "gt_ans": 1, "initial_score": 0.0, "final_valid_transitions": [[0, 1, 1, 3]]},
        {
            "sample_info": {"question": "b?", "ground_truth": "2", "query_id": 77},
            "initial_transition_metric": 1.0,
            "final_valid_transitions": [IDENTITY, [0, 3]],
            "final_invalid_transitions": [[3, 2, 1, 0]],
            "search_trajectory": [],
        },
        {"question": "c?", "answer": "3", "final_valid_transitions": [[0]]},
    ]
    written = []
    for name, content in (
        ("object.json", {"samples": samples}),
        ("list.json", samples),
        ("by-name.json", dict(enumerate(samples))),
        ("re-polar.json.gz", samples),
    ):
        text = json.dumps(content).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        out = tmp_path / f"run-{name}"
        text = convert("--from", "polar", "--to", "run", tmp_path / name, out, "--task", "dart-math")
        assert "2 examples with 5 programs for 4 layers" in text
        assert "left out, example without a result of the base model: 1" in text and "--model" in text
        written.append(said(out))
    assert written[0] == written[1] == written[2] == written[3]
    assert written[0] == {
        ("polar-000000", "dart-math", "a?", "1", (0, 1, 1, 3)): (True, False, 1, True),
        ("polar-000000", "dart-math", "a?", "1", (0, 1, 2, 3)): (False, False, 0, False),
        ("77", "dart-math", "b?", "2", (0, 3)): (True, True, 1, True),
        ("77", "dart-math", "b?", "2", (0, 1, 2, 3)): (True, True, 2, False),
        ("77", "dart-math", "b?", "2", (3, 2, 1, 0)): (False, True, 0, False),
    }
    frame = read_paths(tmp_path / "run-list.json")
    assert frame.score.isna().all() and frame.counts.isna().sum() == 1
    assert pd.read_parquet(tmp_path / "run-list.json" / "paths").shape == frame.shape


PUBLISHED = [
    {
        "final_valid_transitions": [[0, 1, 1, 3]],
        "final_invalid_transitions": [[0, 1, 2, 3]],
        "initial_transition_metric": 0.0,
        "sample_info": {"query_id": f"MATH-test-{number}", "domain": "Prealgebra"},
    }
    for number in range(2)
]


def test_published_files_are_joined_with_their_questions(tmp_path):
    """Catches files of ids alone that cannot be taken over, and a question that goes to another sample."""
    file, questions = tmp_path / "published.json.gz", tmp_path / "questions.csv"
    file.write_bytes(gzip.compress(json.dumps({"samples": PUBLISHED}).encode()))
    questions.write_text("query_id,problem,answer\nMATH-test-1,1 + 1?,2\nother,?,!\n")
    options = ("--from", "polar", "--to", "run", file, tmp_path / "run")
    said = convert(*options, status=2)
    assert "query_id: --questions FILE joins them by it: 2" in said
    said = convert(*options, "--questions", questions)
    assert "1 examples with 2 programs" in said and "whose query_id is not in --questions: 1" in said
    rows = read_paths(tmp_path / "run")
    assert {*zip(rows.example_id, rows.prompt, rows.answer)} == {("MATH-test-1", "1 + 1?", "2")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"id": "a", "prompt": "?"}', "line 1: there is no column 'answer' or 'gt_ans' or 'ground_truth'"),
        ('{"prompt": "?", "answer": "!"}', "line 1: there is no column 'query_id' or 'question_id' or 'id'"),
        (2 * '{"id": "a", "prompt": "?", "answer": "!"}\n', "line 2: id 'a' was already used"),
    ],
)
def test_questions_that_cannot_be_joined_are_named(tmp_path, rows, message):
    """Catches a traceback, and an id whose first question is taken without a word."""
    (tmp_path / "file.json").write_text(json.dumps(PUBLISHED))
    (tmp_path / "questions.jsonl").write_text(rows)
    options = ("--from", "polar", "--to", "run", tmp_path / "file.json", tmp_path / "run")
    assert message in convert(*options, "--questions", tmp_path / "questions.jsonl", status=2)
    assert "is a folder; give a" in convert(*options, "--questions", tmp_path, status=2)
    to_polar = ("--from", "drllm", "--to", "polar", tmp_path / "file.json", tmp_path / "out.json")
    assert "--from polar alone" in convert(*to_polar, "--questions", tmp_path / "questions.jsonl", status=2)


def test_what_a_file_contradicts_is_said(tmp_path):
    """Catches questions of one name that become one, and two verdicts of which one vanishes."""
    sample = {"question_id": "q", "question": "?", "gt_ans": "1", "initial_score": 1.0}
    samples = [
        {**sample, "final_valid_transitions": [[0, 1]], "final_invalid_transitions": [[0, 1], [0, 1, 2, 3]]},
        {**sample, "final_valid_transitions": [[3]]},
    ]
    (tmp_path / "file.json").write_text(json.dumps(samples))
    text = convert("--from", "polar", "--to", "run", tmp_path / "file.json", tmp_path / "run")
    assert "program given as right and as wrong: 1" in text
    assert "score of the base model that its program contradicts: 1" in text
    assert [key[0] for key in said(tmp_path / "run")] == ["q", "q", "q#2", "q#2"]
    samples[0]["gt_ans"] = "2"
    (tmp_path / "file.json").write_text(json.dumps(samples))
    assert "data_sha256" in convert(
        "--from", "polar", "--to", "run", tmp_path / "file.json", tmp_path / "run", status=2
    )


def test_the_model_tells_the_depth(tmp_path):
    """Catches a depth that is guessed from programs without the last layers, where the model is at hand."""
    model = save_tiny_model(tmp_path / "model")
    samples = [{"question": "?", "gt_ans": "1", "initial_score": 0.0, "final_valid_transitions": [[0, 1]]}]
    (tmp_path / "file.json").write_text(json.dumps(samples))
    options = ("--from", "polar", "--to", "run", "--model", model, "--dtype", "float32", tmp_path / "file.json")
    text = convert(*options, tmp_path / "run")
    assert f"for {DEPTH} layers" in text and "name them with --model" not in text
    assert f"--num-layers 9, but '{model}' has {DEPTH}" in convert(
        *options, tmp_path / "other", "--num-layers", 9, status=2
    )


def test_how_prompts_were_read_comes_along(run, tmp_path):
    """Catches a chat prompt that gets a second beginning-of-text token after it was converted."""
    notes = json.loads((run / "run.json").read_text())
    notes["loaded_model"] = {"num_layers": 3, "special_tokens_added": False}
    (run / "run.json").write_text(json.dumps(notes))
    convert("--from", "run", "--to", "polar", run, tmp_path / "out.json")
    convert("--from", "polar", "--to", "run", tmp_path / "out.json", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "run.json").read_text())["loaded_model"]["special_tokens_added"] is False


def test_results_of_drllm_are_read(tmp_path):
    """Catches lists that are paired wrongly, programs that no model can run, and an answer None where there is none."""
    results = {
        "model_name": "some/model",
        "dataset": "arc_easy",
        "questions": ["a?", "b?", 5, "d?", "e?"],
        "best_response": ["A", "B", "C", None, math.nan],
        "original_correct": [1, 0, 1, 1, 1],
        "good_paths": [[IDENTITY, [0, 1, 3], [0, 1, 3]], [[], [0, 2, 2, 3], [0, 9]], [], [], []],
        "best_path": [[0, 1, 3], [0, 2, 2, 3], [], [], []],
    }
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    text = convert("--from", "drllm", "--to", "run", file, tmp_path / "run", "--num-layers", 4)
    for reason in (
        "program given twice: 1",
        "program that runs no layer: 1",
        "program with a layer outside the model's 4: 1",
        "example whose fields are of other kinds: 3",
    ):
        assert f"left out, {reason}" in text
    assert said(tmp_path / "run") == {
        ("arc_easy-000000", "arc_easy", "a?", "A", (0, 1, 3)): (True, True, 1, True),
        ("arc_easy-000000", "arc_easy", "a?", "A", (0, 1, 2, 3)): (True, True, 2, False),
        ("arc_easy-000001", "arc_easy", "b?", "B", (0, 2, 2, 3)): (True, False, 1, True),
        ("arc_easy-000001", "arc_easy", "b?", "B", (0, 1, 2, 3)): (False, False, 0, False),
    }
    assert set(read_paths(tmp_path / "run").model) == {"some/model"}


@pytest.mark.parametrize("source", ["polar", "drllm"])
def test_what_nobody_sees_is_left_out(tmp_path, source):
    """Catches a question with characters that a reader does not see, and one that stops all as no shard can hold it."""
    texts = ["plain", "tags \U000e0041", "half \ud800", "a" * 1_000_001, "wave \u2061"]
    questions, answers = [*texts, "q"], [*["1"] * len(texts), "\u202e2"]
    if source == "polar":
        content = [
            {"question": question, "gt_ans": answer, "initial_score": 1.0, "final_valid_transitions": [[0, 1]]}
            for question, answer in zip(questions, answers)
        ]
    else:
        content = {"questions": questions, "best_response": answers, "original_correct": [1] * len(questions)}  # type: ignore[assignment]
        content["good_paths"] = [[[0, 1]]] * len(questions)  # type: ignore[call-overload]
    (tmp_path / "file.json").write_text(json.dumps(content))
    text = convert("--from", source, "--to", "run", tmp_path / "file.json", tmp_path / "run")
    assert "example with a text that is too long, no Unicode, or hides characters: 5" in text
    assert {prompt for _, _, prompt, *_ in said(tmp_path / "run")} == {"plain"}


def test_answers_and_margins_that_are_no_numbers(tmp_path):
    """Catches the reference nan, and a margin that is larger than any float."""
    sample = {"question": "?", "initial_score": 1.0, "final_valid_transitions": [[0, 1]], "valid_scores": [10**400]}
    (tmp_path / "file.json").write_text(json.dumps([{**sample, "gt_ans": math.nan}, {**sample, "gt_ans": 1.5}]))
    text = convert("--from", "polar", "--to", "run", tmp_path / "file.json", tmp_path / "run")
    assert "example without its text or its answer: 1" in text
    frame = read_paths(tmp_path / "run")
    assert set(frame.answer) == {"1.5"} and frame.score.isna().all()


@pytest.mark.parametrize("target", ["run", "polar"])
def test_a_run_that_is_damaged_is_named(tmp_path, target):
    """Catches a traceback for a program of another depth, a budget that is no number, and a missing base model."""

    def made(name, kept):
        folder = RunFolder(tmp_path / name)
        folder.open(CONFIG, provenance={})
        folder.commit(0, kept)
        folder.close()
        return folder.root

    short, identity = rows("q")
    options = ("--from", "run", "--to", target)
    deep = made("deep", [{**short, "program": [0, 99]}, identity])
    assert "layers that the model does not have" in convert(*options, deep, tmp_path / "out", status=2)
    some = made("some", [*rows("p"), short])
    text = convert(*options, some, tmp_path / "out")
    assert "1 examples" in text and "example without a result of the base model: 1" in text
    notes = json.loads((some / "run.json").read_text())
    notes["settings"]["search.budget"] = "abc"
    (some / "run.json").write_text(json.dumps(notes))
    assert "holds a budget that is not a number above 0: 'abc'" in convert(*options, some, tmp_path / "no", status=2)


def test_verdicts_on_questions_as_they_stand_are_counted(tmp_path):
    """Catches a run of several ways to ask that becomes one of one way, without a word."""
    folder = RunFolder(tmp_path / "run")
    folder.open(replace(CONFIG, permutations=4), provenance={})
    folder.commit(0, [{**row, "correct_as_asked": True} for row in rows("q")])
    folder.close()
    text = convert("--from", "run", "--to", "polar", folder.root, tmp_path / "out.json")
    assert "left out, result of the first rendering, where the run has several: 2" in text


def test_the_signature_of_a_url_is_kept_nowhere(tmp_path):
    """Catches a secret in run.json, in a card or in a message."""
    file = UPath("memory://files/source.json?signature=not-for-logs")
    samples = [{"question": "?", "gt_ans": "1", "initial_score": 0.0, "final_valid_transitions": [[0, 1]]}]
    request = ConvertRequest(source=file, target=tmp_path / "run", source_format="polar", target_format="run")
    for content, message in ((None, "there is no file"), ("{", "cannot be read as JSON"), ("[]", "holds no samples")):
        if content is not None:
            file.write_text(content)
        with pytest.raises(UserError, match=message) as refusal:
            run_convert(request)
        assert "not-for-logs" not in str(refusal.value)
    file.write_text(json.dumps(samples))
    run_convert(request)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file() and b"not-for" in path.read_bytes()]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["imported"]["file"].endswith("source.json?…")


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, ["--from", "polar", "--to", "run"], "there is no file"),
        ("{", ["--from", "polar", "--to", "run"], "cannot be read as JSON"),
        ("\x1f\x8bx", ["--from", "polar", "--to", "run"], "cannot be read as JSON"),
        ("\x1f\x8b\x08" + 7 * "\x00" + "damaged", ["--from", "polar", "--to", "run"], "cannot be read as JSON"),
        (
            '{"budget": NaN, "samples": [{"final_valid_transitions": [[0]]}]}',
            ["--from", "polar", "--to", "run"],
            "budget",
        ),
        ('[{"final_valid_transitions": [[99999]]}]', ["--from", "polar", "--to", "run"], "which no model has"),
        ("[1, 2]", ["--from", "polar", "--to", "run"], "holds no samples of PoLar's"),
        ("[1, 2]", ["--from", "drllm", "--to", "run"], "no results file of Dr.LLM's"),
        ('[{"final_valid_transitions": []}]', ["--from", "polar", "--to", "run"], "give it with --num-layers"),
        ('[{"final_valid_transitions": [[0]]}]', ["--from", "polar", "--to", "run"], "nothing in"),
        ("[]", ["--from", "run", "--to", "polar"], "no run folder"),
        ("[]", ["--from", "polar", "--to", "drllm"], "choose one of: run, polar"),
        ("[]", ["--from", "run", "--to", "run", "--task", "x"], "leave out --num-layers and --task"),
        ('[{"final_valid_transitions": [[0]]}]', ["--from", "polar", "--to", "run", "--num-layers", "0"], "at least 1"),
    ],
)
def test_a_wrong_source_gets_its_message(tmp_path, content, arguments, message):
    """Catches a traceback, and a folder that is left behind where nothing could be taken over."""
    source = tmp_path / "source.json"
    if content is not None:
        source.write_bytes(content.encode("latin-1"))
    assert message in convert(*arguments, source, tmp_path / "target", status=2)
    assert not (tmp_path / "target").exists()


def test_nothing_is_written_over(run, tmp_path):
    """Catches a conversion that replaces a file or a run of the user's."""
    (tmp_path / "kept.json").write_text("mine")
    assert "exists already" in convert("--from", "run", "--to", "polar", run, tmp_path / "kept.json", status=2)
    assert (tmp_path / "kept.json").read_text() == "mine"
    convert("--from", "run", "--to", "polar", run, tmp_path / "file.json")
    said = convert("--from", "polar", "--to", "run", tmp_path / "file.json", run, status=2)
    assert "is a run that was searched" in said


def test_a_margin_that_is_no_number_is_committed(tmp_path):
    """Catches a check of what was written that takes a NaN for damage."""
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, provenance={})
    folder.commit(0, [{**row, "score": math.nan} for row in rows("q")])
    folder.close()
    assert read_paths(tmp_path / "run").score.isna().all() and SCHEMA.field("score").nullable is False

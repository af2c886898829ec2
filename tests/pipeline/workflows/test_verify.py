"""Replaying a run: what is found, and what is said."""

from __future__ import annotations

import hashlib
import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import command
from tiny import save_tiny_model, write_questions

from pipeline.shards.reader import read_paths
from pipeline.shards.run_config import SCHEMA_VERSION
from pipeline.shards.schema import schema_of
from pipeline.workflows.verify import Difference, Verification
from pipeline.workflows.verify_request import VerifyRequest

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]


@pytest.fixture(scope="module")
def run(tmp_path_factory, local_actors):
    folder = tmp_path_factory.mktemp("verify")
    model, questions = save_tiny_model(folder / "model"), write_questions(folder / "questions.jsonl", 16)
    command(
        *("search", "--model", model, "--task", "arc", "--data", questions, "--out", folder / "run"),
        *("--simulations", 20, "--calibration", 8, "--actors", 2),
    )
    return folder / "run"


def turn(run, wrong, column="correct"):
    """Give some rows the other verdict, as an evaluator with a mistake would have: committed and consistent."""
    shard = sorted((run / "paths").iterdir())[0]
    table = pq.read_table(shard)
    rows = table.to_pylist()
    turned = rows[:wrong]
    for row in turned:
        row[column] = not row[column]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shard)
    record = run / "manifest" / f"{shard.stem.removesuffix('-train')}.json"
    said = json.loads(record.read_text())
    record.write_text(json.dumps({**said, "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}))
    return turned


def test_a_run_is_confirmed(run):
    """Catches an engine whose labels stock models do not confirm, and a replay that skips rows."""
    rows = len(read_paths(run))
    assert rows > 16
    text = command("verify", run, "--actors", 2)
    assert f"Replaying {rows} of {rows} rows of 16 examples" in text
    assert f"0 of {rows} replayed labels differ (0.00 %), in float32." in text


def test_both_verdicts_are_in_the_rows_and_are_confirmed(run, tmp_path):
    """Catches a lucky guess that is kept as a correction, and a replay that asks in fewer ways than the search did."""
    model, questions = run.parent / "model", run.parent / "questions.jsonl"
    search = ("search", "--model", model, "--task", "arc", "--data", questions, "--out", tmp_path / "run", "--limit", 8)
    search += ("--simulations", 20, "--calibration", 0, "--keep", "all", "--actors", 2)  # type: ignore[assignment]
    command(*search, "--permutations", 4)
    rows = read_paths(tmp_path / "run")
    assert (
        list(rows.columns)
        == schema_of({"permutations": 4}, version=SCHEMA_VERSION).names
        == list(pd.read_parquet(tmp_path / "run/paths"))
    )
    assert (rows.correct <= rows.correct_as_asked).all() and rows.correct_as_asked.sum() > rows.correct.sum()
    # As asked, the verdicts are those of a search that asks once.
    once = read_paths(run)
    same = rows.merge(once.assign(text=once.program.map(str)), on="example_id", suffixes=("", "_once"))
    same = same[same.program.map(str) == same.text]
    assert len(same) > 8 and (same.correct_as_asked == same.correct_once).all()
    assert f"0 of {len(rows)} replayed labels differ" in command("verify", tmp_path / "run", "--actors", 2)
    turn(tmp_path / "run", 1, "correct_as_asked")
    text = command("verify", tmp_path / "run", "--actors", 2, status=1)
    assert f"1 of {len(rows)} replayed labels differ" in text and " in the run's first rendering" in text
    assert "has 4 renderings" in command("inspect", tmp_path / "run")
    assert "--permutations: 4 there, not given now" in command(*search, status=2)
    assert "examples of task 'gsm8k' have 4 renderings" in command(
        *("search", "--model", model, "--task", "gsm8k", "--data", questions, "--out", tmp_path / "no"),
        *("--permutations", 5),
        status=2,
    )


def test_wrong_labels_are_found(run, tmp_path):
    """Catches a replay that repeats what the run says, instead of looking."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    turned = turn(copy, wrong=2)
    text = command("verify", copy, status=1)
    assert "2 of" in text
    for row in turned:
        was, now = ("right", "wrong") if row["correct"] else ("wrong", "right")
        lines = [line for line in text.splitlines() if f"{row['example_id']}, layers" in line]
        assert any(f": {was} in the run (margin" in line and f"{now} replayed" in line for line in lines)
    share = 2 / len(read_paths(copy))
    assert "2 of" in command("verify", copy, "--tolerance", share + 0.001)


def test_a_tolerance_is_a_share_of_what_was_replayed():
    """Catches a tolerance that counts rows, or that is of the whole run where a part was replayed."""
    difference = Difference(
        example_id="q",
        program=None,
        correct=True,
        margin=1.0,
        replayed_margin=-1.0,
        reason="unequal",
        same_answer=False,
    )
    differences = [difference] * 2
    assert Verification(rows=1000, replayed=10, differences=differences, dtype="float32").differing_share == 0.2
    assert Verification(rows=0, replayed=0, differences=[], dtype="float32").differing_share == 0.0


def test_a_share_is_the_same_in_every_call(run):
    """Catches a sample that differs in every call, which cannot be looked into."""
    rows = read_paths(run)
    request = VerifyRequest(run=run, fraction=0.3)
    drawn = [request.draws(row.example_id, row.program) for row in rows.itertuples()]
    assert drawn == [VerifyRequest(run=run, fraction=0.3).draws(*of) for of in zip(rows.example_id, rows.program)]
    assert 0 < sum(drawn) < len(rows)
    assert f"Replaying {sum(drawn)} of {len(rows)} rows" in command("verify", run, "--fraction", 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fraction", 0], "--fraction must be above 0"),
        (["--tolerance", -1], "--tolerance must be between"),
        (["--dtype", "bfloat16"], "the run was searched in float32"),
        (["--base", "smollm2"], "is not the model that was searched"),
        (["--fraction", 1e-9], "draws none of the"),
    ],
)
def test_a_wrong_call_gets_its_message(run, options, message):
    """Catches a traceback, or a replay by another model."""
    assert message in command("verify", run, *options, status=2)


def test_what_cannot_be_replayed_is_said(run, tmp_path):
    """Catches a missing run, one without rows, and questions that are gone."""
    assert "no run folder" in command("verify", tmp_path / "none", status=2)
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    notes = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**notes, "data": str(tmp_path / "gone.jsonl"), "data_path": None}))
    assert "cannot be read again" in command("verify", copy, status=2)
    (copy / "run.json").write_text(json.dumps({**notes, "settings": {**notes["settings"], "model.revision": None}}))
    assert "holds no 'model.revision'" in command("verify", copy, status=2)
    shutil.rmtree(copy / "manifest")
    assert "nothing is committed" in command("verify", copy, status=2)

"""The actor's own work, in this process: which searches teach, and which are taught."""

from __future__ import annotations

from dataclasses import replace

from tiny import save_tiny_model, write_questions

from pipeline.config import RunConfig
from pipeline.evaluator import SearchEvaluator
from pipeline.model_source import resolve_model
from pipeline.prior import fit_prior
from pipeline.search import SearchConfig
from pipeline.tasks import DataRequest, get_task


def test_only_questions_that_are_taught_are_searched_in_larger_blocks(tmp_path):
    """Catches a prior that learns from programs too far away, and a run whose own space is lost with it."""
    data = write_questions(tmp_path / "questions.jsonl", 2)
    examples = get_task("arc").read(DataRequest(data=str(data)))
    config = RunConfig(
        model=resolve_model(str(save_tiny_model(tmp_path / "model"))),
        task="arc",
        data_sha256="",
        search=SearchConfig(action_space="cola", simulations=40, budget=2.0),
        keep="all",
        calibration=2,
        device="cpu",
        dtype="float32",
    )
    evaluator = SearchEvaluator(config)
    evaluator.load()

    lessons = evaluator.search(examples, teaches=True).evaluations
    # Dr.LLM's edits keep the layers' order, so that counts say all of a program; CoLa's blocks do not.
    assert len(lessons) == 2 * 41 and all(lesson.program.counts is not None for lesson in lessons)
    taught = evaluator.search(examples, fit_prior(lessons, compare_margins=True))
    assert taught.evaluations == []
    assert len(taught.rows) == 2 * 41 and any(row["counts"] is None for row in taught.rows)


def test_only_programs_that_the_oracle_confirms_are_kept(tmp_path, monkeypatch):
    """Catches rows that a mistake of the engine made, and a question that is left without its untouched model."""
    from pipeline.engine import FrozenModel

    data = write_questions(tmp_path / "questions.jsonl", 4)
    examples = get_task("arc").read(DataRequest(data=str(data)))
    config = RunConfig(
        model=resolve_model(str(save_tiny_model(tmp_path / "model"))),
        task="arc",
        data_sha256="",
        search=SearchConfig(simulations=40),
        keep=2,
        device="cpu",
        dtype="float32",
    )
    sound = SearchEvaluator(replace(config, keep="all"))
    sound.load()
    right = {(row["example_id"], tuple(row["program"])): row["correct"] for row in sound.search(examples).rows}

    logits = FrozenModel.logits

    def broken(model, token_ids, programs, *, starts=None):
        found = logits(model, token_ids, programs, starts=starts)
        # Of programs that leave out the second layer the engine says the contrary of what is so.
        return [-of_row if 1 not in program.layers else of_row for of_row, program in zip(found, programs)]

    monkeypatch.setattr(FrozenModel, "logits", broken)
    rows = {}
    for reverify in (False, True):
        evaluator = SearchEvaluator(replace(config, reverify=reverify))
        evaluator.load()
        rows[reverify] = evaluator.search(examples).rows
    said = {(row["example_id"], tuple(row["program"])): row["correct"] for row in rows[False]}
    assert any(right.get(key, verdict) != verdict for key, verdict in said.items()), "the mistake shows"
    for row in rows[True]:
        assert 1 in row["program"] or not row["correct"]
    assert {row["example_id"] for row in rows[True]} == {example.id for example in examples}
    assert sum(row["program"] == list(range(6)) for row in rows[True]) == len(examples)
    best = [row for row in rows[True] if row["is_best"]]
    assert best and all(row["rank"] == 1 for row in best)

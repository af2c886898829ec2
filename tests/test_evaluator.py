"""The actor's own work, in this process: which searches teach, and which are taught."""

from __future__ import annotations

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

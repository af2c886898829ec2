"""The actor's own work, in this process: the calibration set, the prior, and confirmed rows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file
from tiny import save_tiny_model, write_questions
from transformers import AutoTokenizer

from pipeline.distributed.evaluator import SearchEvaluator
from pipeline.distributed.kept_rows import rows_to_keep
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.prior import fit_prior
from pipeline.program import LayerProgram
from pipeline.search.config import SearchConfig
from pipeline.search.group_search import ExampleSearch
from pipeline.search.tree import SearchTree
from pipeline.search.verdicts import Verdict
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import DataRequest, Example, Outcome, PreparedExample, get_task


def test_only_questions_with_a_prior_are_searched_in_larger_blocks(tmp_path):
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

    evaluations = evaluator.search(examples, calibrates=True).evaluations
    # Dr.LLM's edits keep the layers' order, so that counts say all of a program; CoLa's blocks do not.
    assert len(evaluations) == 2 * 41 and all(one.program.counts is not None for one in evaluations)
    guided = evaluator.search(examples, fit_prior(evaluations, compare_margins=True))
    assert guided.evaluations == []
    assert len(guided.rows) == 2 * 41 and any(row["counts"] is None for row in guided.rows)


def test_only_programs_that_the_oracle_confirms_are_kept(tmp_path, monkeypatch):
    """Catches rows that a mistake of the engine made, and a question that is left without its base model."""
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
    rows, replayed = {}, {}
    for reverify in (False, True):
        evaluator = SearchEvaluator(replace(config, reverify=reverify))
        evaluator.load()
        rows[reverify] = evaluator.search(examples).rows
        replayed[reverify] = evaluator.activity()[1]
    # The coordinator sees that an actor that replays is not stalled.
    assert not replayed[False] and replayed[True] >= len(rows[True])
    said = {(row["example_id"], tuple(row["program"])): row["correct"] for row in rows[False]}
    assert any(right.get(key, verdict) != verdict for key, verdict in said.items()), "the mistake shows"
    for row in rows[True]:
        assert 1 in row["program"] or not row["correct"]
    assert {row["example_id"] for row in rows[True]} == {example.id for example in examples}
    assert sum(row["program"] == list(range(6)) for row in rows[True]) == len(examples)
    best = [row for row in rows[True] if row["is_best"]]
    assert best and all(row["rank"] == 1 for row in best)


def test_a_base_model_that_overflows_on_an_example_ends_the_search(tmp_path):
    """Catches examples that are all labelled wrong, with exit code 0: the states are too large for the precision."""
    folder = save_tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    [token] = AutoTokenizer.from_pretrained(folder)("Z").input_ids
    weights["model.embed_tokens.weight"][token] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = RunConfig(
        model=resolve_model(str(folder)),
        task="arithmetic",
        data_sha256="",
        search=SearchConfig(simulations=3),
        device="cpu",
        dtype="float32",
    )
    evaluator = SearchEvaluator(config)
    evaluator.load()
    examples = [Example(id=text, task="arithmetic", question=text, answer="2") for text in ("1 + 1 =", "Z =")]
    assert evaluator.search(examples[:1]).rows
    with pytest.raises(UserError, match=r"the logits of the base model .* are not finite numbers in float32"):
        evaluator.search(examples)


IDENTITY = LayerProgram.identity(8)


def searched(right: dict[str, float]) -> ExampleSearch:
    """A question whose search found these programs right, each with its margin, and the base model wrong."""
    example = Example(id="q", task="arithmetic", question="1 + 1 =", answer="2")
    tree = SearchTree(num_layers=8, config=SearchConfig(), seed=0)
    item = ExampleSearch(PreparedExample(example=example, prompt="1 + 1 =", prompt_ids=[1], answers=[[2]]), tree)
    margins = {IDENTITY: -1.0, **{LayerProgram.parse(text, 8): margin for text, margin in right.items()}}
    for program, margin in margins.items():
        tree.verdicts[program] = Verdict(program=program, correct=margin > 0, margin=margin)
        item.outcomes[program] = outcome(margin)
    return item


def outcome(margin: float) -> Outcome:
    return Outcome(correct=margin > 0, reason="ended", margin=margin, response="2", layer_executions=8)


@pytest.mark.parametrize("keep", [1, "pareto"])
def test_the_next_best_takes_the_place_of_what_is_not_confirmed(keep):
    """Catches right programs that are lost because a shorter one, which beats them, was none."""
    item = searched({"0,7": 3.0, "0-2,7": 2.0, "0-5,7": 1.0})
    config = RunConfig(
        model=ModelSource(name="m", location="m", revision="r"),
        task="arithmetic",
        data_sha256="",
        keep=keep,
        search=SearchConfig(),
        device="cpu",
        dtype="float32",
    )

    def replay(program):
        return outcome(-1.0 if len(program) == 2 else item.outcomes[program].margin)

    rows = rows_to_keep(item, config, replay)
    assert [row["length"] for row in rows] == [4, 8] and [row["is_best"] for row in rows] == [True, False]
    # The identity program's row holds the replayed result: every question has such a row.
    rows = rows_to_keep(item, config, lambda program: outcome(0.5) if program == IDENTITY else replay(program))
    assert (
        rows[-1]["program"] == list(range(8)) and rows[-1]["correct"] and all(row["baseline_correct"] for row in rows)
    )

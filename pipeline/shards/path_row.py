"""A row of a path data set: all rows are built here."""

from __future__ import annotations

from typing import Any, TypeAlias

from pipeline.program import LayerProgram

#: The values of a row by column; see ``pipeline.shards.schema.COLUMNS``.
PathRow: TypeAlias = dict[str, Any]

_MOST_COUNTED = 127


def path_row(
    *,
    example_id: str,
    task: str,
    prompt: str,
    answer: str,
    response: str | None,
    program: LayerProgram,
    correct: bool,
    correct_as_asked: bool | None = None,
    reason: str | None = None,
    margin: float,
    baseline_correct: bool,
    rank: int,
    simulations: int,
    evaluations: int,
    layer_executions: int,
    model: str,
    run_id: str,
) -> PathRow:
    """The row of one program on one example.

    Args:
        example_id: The example.
        task: The task's name.
        prompt: The exact text given to the tokenizer.
        answer: The reference answer.
        response: The answer under the program; None where it was not read to its end.
        program: The program.
        correct: Whether the program's answer is right, in every rendering of the example.
        correct_as_asked: Whether its answer is right in the first rendering; None where that is the only rendering.
        reason: Why the answer is right or wrong (``pipeline.tasks.types.Reason``); None where that is not known.
        margin: Distance of the logits from the opposite result, positive where right. The column is called ``score``.
        baseline_correct: Whether the base model is right on the example.
        rank: Rank among the right programs within the budget, from 1; 0 for any other program.
        simulations: Programs that the search tried beside the identity program.
        evaluations: Distinct programs run on the example.
        layer_executions: Layers of those programs, summed over all rows and passes.
        model: The model's name.
        run_id: The run's id.

    Returns:
        A value for every column that there is; a run writes those that its schema version has.
    """
    return {
        "example_id": example_id,
        "task": task,
        "prompt": prompt,
        "answer": answer,
        "response": response,
        "program": list(program),
        "counts": _storable_counts(program),
        "length": len(program),
        "num_layers": program.num_layers,
        "saved_layers": program.saved_layers,
        "correct": correct,
        "correct_as_asked": correct_as_asked,
        "reason": reason,
        "score": margin,
        "baseline_correct": baseline_correct,
        "is_best": rank == 1,
        "rank": rank,
        "simulations": simulations,
        "evaluations": evaluations,
        "layer_executions": layer_executions,
        "model": model,
        "run_id": run_id,
    }


def _storable_counts(program: LayerProgram) -> list[int] | None:
    """Counts as the shards hold them: a byte each, so a layer that runs more than 127 times has none."""
    counts = program.counts
    return None if counts is None or max(counts) > _MOST_COUNTED else list(counts)

"""The columns of a path data set."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def _list_of(item: pa.DataType) -> pa.DataType:
    """A list whose items bear Parquet's own name, so that a file reads back with this very schema."""
    return pa.list_(pa.field("element", item))


SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("response", pa.string()),
        pa.field("program", _list_of(pa.int16()), nullable=False),
        pa.field("counts", _list_of(pa.int8())),
        pa.field("length", pa.int16(), nullable=False),
        pa.field("num_layers", pa.int16(), nullable=False),
        pa.field("saved_layers", pa.int16(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("baseline_correct", pa.bool_(), nullable=False),
        pa.field("is_best", pa.bool_(), nullable=False),
        pa.field("rank", pa.int16(), nullable=False),
        pa.field("simulations", pa.int32(), nullable=False),
        pa.field("evaluations", pa.int32(), nullable=False),
        pa.field("layer_executions", pa.int64(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)

#: Of runs that ask each question in several ways (``--permutations``): both verdicts.
_BOTH_VERDICTS = SCHEMA.insert(
    SCHEMA.get_field_index("correct") + 1, pa.field("correct_as_asked", pa.bool_(), nullable=False)
)

#: What each column means, for the data set card.
COLUMNS = {
    "example_id": "the question; one identity row and the programs that the run keeps (`--keep`) each",
    "task": "the task's name",
    "prompt": "the exact text given to the tokenizer, chat template applied where the task has one",
    "answer": "the reference answer",
    "response": "what the program answered",
    "program": "the layers that ran, in order",
    "counts": "how often each layer ran; null where the program does not keep the layers' order",
    "length": "layers run: the program's length",
    "num_layers": "the model's depth L",
    "saved_layers": "L - length",
    "correct": "whether the program's answer is right; with `--permutations`, in every rendering of the question",
    "correct_as_asked": "only with `--permutations`: whether the answer to the question as it stands is right",
    "score": "the margin: how far the verdict is from turning, positive where right",
    "baseline_correct": "whether the untouched model is right on this question",
    "is_best": "the shortest right program within the budget, then the one of the largest margin",
    "rank": "place among the right programs within the budget, from 1; 0 for a row that is none of them",
    "simulations": "programs that the search tried on this question beside the identity",
    "evaluations": "distinct programs run on this question",
    "layer_executions": "layers that the programs tried ask for, once a row and pass, whether or not they shared one",
    "model": "the model as the run was told",
    "run_id": "names the run's settings",
}


def schema_of(settings: dict[str, Any]) -> pa.Schema:
    """The columns of a run with those settings."""
    return SCHEMA if settings.get("permutations", 1) == 1 else _BOTH_VERDICTS

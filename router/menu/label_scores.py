"""The base model's log-likelihood of every label, where all examples of a menu have the same options.

With a few fixed labels a layer program may do no more than move a bias among them, and a selector may be a classifier
of labels in disguise. So two baselines need these scores and labels: the base model with its bias calibrated away
(contextual calibration, 2102.09690, section 5), and a probe that says the label itself.

MENU/label_scores.parquet    one row for each example, in the order of the race
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.distributed.model_actor import TaskActor
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath, content, is_there
from pipeline.storage.parquet import parquet_bytes
from pipeline.tasks import Example, Task
from pipeline.tasks.scoring.choice import Choice

Array = np.ndarray[Any, Any]

FILE = "label_scores.parquet"
#: Questions that say nothing: an answer to them shows the bias alone (2102.09690 takes the same three).
CONTENT_FREE = ("N/A", "[MASK]", "")
#: Examples that an actor receives at once.
CHUNK = 32
_SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), metadata={"description": "Id of the example."}),
        pa.field("label", pa.int32(), metadata={"description": "Index of the right label."}),
        pa.field("labels", pa.list_(pa.string()), metadata={"description": "The labels."}),
        pa.field(
            "scores",
            pa.list_(pa.float64()),
            metadata={"description": "Log-likelihood of each label under the base model."},
        ),
        pa.field(
            "content_free",
            pa.list_(pa.float64()),
            metadata={"description": "The same for a prompt whose question says nothing."},
        ),
    ]
)


@dataclass(frozen=True, kw_only=True)
class LabelScores:
    """The labels of a menu's examples, and the base model's scores of them; N examples, C labels.

    Attributes:
        labels: The labels.
        right: Index of each example's right label, ``[N]``.
        scores: Log-likelihood of each label, ``[N, C]``.
        content_free: The same for a prompt whose question says nothing, ``[C]``.
    """

    labels: tuple[str, ...]
    right: Array
    scores: Array
    content_free: Array

    def calibrated(self) -> Array:
        """Whether the base model is right where its bias is calibrated away, ``[N]``."""
        return np.asarray((self.scores - self.content_free).argmax(1) == self.right)


def fixed_labels(task: Task, examples: Sequence[Example]) -> tuple[str, ...] | None:
    """The labels where all examples have the same options in the same order, and the model chooses among them."""
    if not isinstance(task.scoring, Choice) or len({example.options for example in examples}) != 1:
        return None
    return examples[0].options


class LabelScoresActor(TaskActor):
    """Scores the labels of examples with the base model."""

    def work(self, examples: Sequence[Example]) -> list[list[float]]:
        """The log-likelihood of each example's options."""
        self._begin()
        prepared = [self._task.prepare(example, self._model.tokenizer) for example in examples]
        identity = LayerProgram.identity(self._model.num_layers)
        assert isinstance(self._task.scoring, Choice)
        return self._task.scoring.log_likelihoods(self._model, prepared, [identity] * len(prepared))


def without_content(example: Example) -> list[Example]:
    """The example with questions that say nothing, its wording kept where the task has one.

    Without a wording an empty question is no prompt, and is left out.
    """
    questions = [_emptied(example.question, nothing) for nothing in CONTENT_FREE]
    return [replace(example, question=one, prompt=None, renderings=()) for one in questions if one.strip()]


def _emptied(question: str, nothing: str) -> str:
    """A question whose first line's words, behind the name that the wording gives them, are others."""
    name, colon, _ = question.partition(": ")
    ending = question.rpartition("\n")[2] if "\n" in question else ""
    return f"{name}{colon}{nothing}\n{ending}" if colon and ending else nothing


def content_free(scores: Sequence[Sequence[float]]) -> list[float]:
    """The log of each label's mean probability over prompts whose questions say nothing."""
    logits = np.array(scores)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    mean: list[float] = np.log((shares / shares.sum(1, keepdims=True)).mean(0)).tolist()
    return mean


def encoded_scores(
    examples: Sequence[Example], labels: Sequence[str], scores: Sequence[Sequence[float]], bias: Sequence[float]
) -> bytes:
    """The table, as a Parquet file.

    Args:
        examples: The examples.
        labels: The labels.
        scores: Log-likelihoods of the labels, ``[N, C]``.
        bias: The same for a prompt whose question says nothing, ``[C]``.
    """
    columns = [
        [example.id for example in examples],
        [list(labels).index(example.answer) for example in examples],
        [list(labels)] * len(examples),
        [list(map(float, row)) for row in scores],
        [list(map(float, bias))] * len(examples),
    ]
    return parquet_bytes(pa.table(columns, schema=_SCHEMA))


def read_label_scores(menu: AnyPath) -> LabelScores | None:
    """A menu's label scores; None where its examples have other options each.

    Raises:
        UserError: The file is damaged.
    """
    if not is_there(menu / FILE):
        return None
    try:
        table = pq.read_table(pa.BufferReader(content(menu / FILE)))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{menu / FILE} is damaged ({error}); remove it, and run the same menu command again") from None
    if not table.schema.equals(_SCHEMA) or not len(table):
        raise UserError(f"{menu / FILE} has other columns; remove it, and run the same menu command again")
    rows = table.to_pydict()
    number = len(rows["labels"][0] or ())
    widths = {len(row or ()) for name in ("labels", "scores", "content_free") for row in rows[name]}
    if widths != {number} or not all(label is not None and 0 <= label < number for label in rows["label"]):
        raise UserError(f"{menu / FILE} is damaged; remove it, and run the same menu command again")
    return LabelScores(
        labels=tuple(rows["labels"][0]),
        right=np.array(rows["label"]),
        scores=np.array(rows["scores"], dtype=np.float64),
        content_free=np.array(rows["content_free"][0], dtype=np.float64),
    )

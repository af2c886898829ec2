"""Users' own questions: rows of ``prompt`` and ``answer``, matched to the letter.

The prompt is given to the tokenizer as it stands; the answer is what the model must write next, up to
its first line end.
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.tasks.base import DataRequest, Example, Task
from pipeline.tasks.data import Row, read_examples
from pipeline.tasks.scoring import ExactMatch


def read(request: DataRequest) -> list[Example]:
    """Rows with ``prompt`` and ``answer``, and optionally ``id``."""

    def to_example(row: Row) -> tuple[str, str, tuple[str, ...]]:
        answer = row.text("answer").strip()
        if "\n" in answer:
            raise UserError(f"{row.where}: the answer has several lines; only the first line of a response is compared")
        return row.text("prompt"), answer, ()

    return read_examples(request, task="jsonl", to_example=to_example)


PAIRS = Task(
    name="jsonl",
    summary="your own rows of prompt and answer (jsonl, csv or parquet), matched to the letter",
    read=read,
    scoring=ExactMatch(max_new_tokens=32),
    chat=False,
)

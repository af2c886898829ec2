"""The task ``jsonl``: your own rows of ``prompt`` and ``answer``, in a jsonl, csv or parquet file.

The name is older than the other two file types; it stays because runs store it. The prompt goes to the tokenizer as it
is. The answer is the text that the model must write next, up to its first line end; it must match exactly. The column
``renderings`` holds other wordings of a prompt.
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.tasks.rows import ExampleFields, Row, read_examples
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.task import Task
from pipeline.tasks.types import DataRequest, Example, Rendering


def read(request: DataRequest) -> list[Example]:
    """Read rows with ``prompt`` and ``answer``, optionally ``id``, and ``renderings``: other wordings of the prompt."""

    def to_example(row: Row) -> ExampleFields:
        answer = row.text("answer").strip()
        if "\n" in answer:
            raise UserError(f"{row.where}: the answer has several lines; only the first line of a response is compared")
        others = row.texts("renderings")[: request.renderings - 1] if request.renderings > 1 else []
        if len(others) < request.renderings - 1:
            raise UserError(
                f"{row.where}: --permutations {request.renderings} needs {request.renderings - 1} texts in the column "
                f"'renderings', found {len(others)}"
            )
        prompt = row.text("prompt")
        if len({prompt, *others}) < request.renderings:
            raise UserError(
                f"{row.where}: --permutations {request.renderings} needs as many different texts, but a text in the "
                "column 'renderings' is the prompt again, or is there twice"
            )
        return ExampleFields(
            question=prompt,
            answer=answer,
            renderings=tuple(Rendering(question=other, answer=answer) for other in others),
        )

    return read_examples(request, task="jsonl", to_example=to_example)


PROMPT_ANSWER = Task(
    name="jsonl",
    summary="your own rows of prompt and answer (jsonl, csv or parquet), exact match",
    read=read,
    scoring=ExactMatch(max_new_tokens=32),
    chat=False,
)

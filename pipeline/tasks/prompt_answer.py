"""The task ``jsonl``: your own rows of ``prompt`` and ``answer``, in a jsonl, csv or parquet file.

The name is older than the other two file types; it stays because runs store it. The prompt goes to the tokenizer as it
is, or into the chat template. The answer is the text that the model must write next: one text, or a list of texts of
which any will do. ``TaskOptions`` names the columns and says when an answer is right. The column ``renderings`` holds
other wordings of a prompt.
"""

from __future__ import annotations

from functools import partial

from pipeline.errors import UserError
from pipeline.tasks.matching import Match, flaw_of_reference
from pipeline.tasks.rows import ExampleFields, Row, as_text, read_examples
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.scoring.matched_line import MatchedLine
from pipeline.tasks.task import Task
from pipeline.tasks.task_options import DEFAULT_MATCH, TaskOptions
from pipeline.tasks.types import DataRequest, Example, Rendering

NAME = "jsonl"
_MAX_NEW_TOKENS = 32


def prompt_answer_task(options: TaskOptions) -> Task:
    """The task ``jsonl`` with these options."""
    match = options.match or DEFAULT_MATCH
    scoring = (
        ExactMatch(max_new_tokens=_MAX_NEW_TOKENS)
        if match == "exact"
        else MatchedLine(max_new_tokens=_MAX_NEW_TOKENS, match=match)
    )
    return Task(
        name=NAME,
        summary="your own rows of prompt and answer (jsonl, csv or parquet), compared by --match",
        read=partial(read, options=options),
        scoring=scoring,
        chat=options.chat,
        system=options.system,
        needs_chat_template=options.chat,
    )


def read(request: DataRequest, *, options: TaskOptions) -> list[Example]:
    """Read rows with a prompt and an answer, optionally ``id``, and ``renderings``: other wordings of the prompt."""
    columns = options.prompt_column, options.answer_column

    def to_example(row: Row) -> ExampleFields:
        missing = [repr(column) for column in columns if column not in row.values]
        if missing:
            raise UserError(
                f"{row.where}: there is no column {' and no column '.join(missing)}; it has: "
                f"{', '.join(row.values) or 'no columns'}. --prompt-column and --answer-column name other columns"
            )
        answer, *others_accepted = _references(row, options.answer_column, options.match or DEFAULT_MATCH)
        others = row.texts("renderings")[: request.renderings - 1] if request.renderings > 1 else []
        if len(others) < request.renderings - 1:
            raise UserError(
                f"{row.where}: --permutations {request.renderings} needs {request.renderings - 1} texts in the column "
                f"'renderings', found {len(others)}"
            )
        prompt = row.text(options.prompt_column)
        if len({prompt, *others}) < request.renderings:
            raise UserError(
                f"{row.where}: --permutations {request.renderings} needs as many different texts, but a text in the "
                "column 'renderings' is the prompt again, or is there twice"
            )
        return ExampleFields(
            question=prompt,
            answer=answer,
            also_accepted=tuple(others_accepted),
            renderings=tuple(Rendering(question=other, answer=answer) for other in others),
        )

    return read_examples(request, task=NAME, to_example=to_example)


def _references(row: Row, column: str, match: Match) -> list[str]:
    """The accepted answers of a row, each once.

    Raises:
        UserError: There is none, or one that nothing could match.
    """
    value = row.values.get(column)
    if isinstance(value, list):
        texts = [as_text(one) for one in value]
        if not texts or None in texts:
            raise UserError(f"{row.where}: column {column!r} must hold a text or a list of texts, found {value!r:.60}")
        answers = [row.checked(column, text).strip() for text in texts if text is not None]
    else:
        answers = [row.text(column).strip()]
    for answer in answers:
        if "\n" in answer:
            raise UserError(f"{row.where}: the answer has several lines; only the first line of a response is compared")
        flaw = flaw_of_reference(match, answer)
        if flaw is not None:
            raise UserError(f"{row.where}: the answer {flaw}")
    return list(dict.fromkeys(answers))


PROMPT_ANSWER = prompt_answer_task(TaskOptions())

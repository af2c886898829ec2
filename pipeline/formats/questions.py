"""The questions of a path data set that names them by id alone, as RE-PoLar's published files do."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.storage import AnyPath, is_folder, without_secrets
from pipeline.tasks.rows import FILE_TYPES, read_rows

#: Columns of the id, the prompt and the reference answer, the first that a row has.
_ID, _PROMPT = ("query_id", "question_id", "id"), ("prompt", "question", "query", "problem")
_ANSWER = ("answer", "gt_ans", "ground_truth")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A prompt and its reference answer."""

    prompt: str
    answer: str


def read_questions(file: AnyPath) -> dict[str, Question]:
    """The questions of a file by their ids.

    Args:
        file: A jsonl, csv or parquet file. Its columns are ``query_id`` (or ``question_id``, ``id``), ``prompt`` (or
            ``question``, ``query``, ``problem``) and ``answer`` (or ``gt_ans``, ``ground_truth``).

    Raises:
        UserError: The file cannot be read, a row lacks a column, or two rows have one id.
    """
    if is_folder(file):
        raise UserError(f"--questions {without_secrets(file)} is a folder; give a {', '.join(FILE_TYPES)} file")
    questions: dict[str, Question] = {}
    for row in read_rows(str(file), split="train"):
        identifier = row.text(*_ID)
        if identifier in questions:
            raise UserError(f"{row.where}: id {identifier!r} was already used; ids must be unique")
        questions[identifier] = Question(prompt=row.text(*_PROMPT), answer=row.text(*_ANSWER))
    return questions

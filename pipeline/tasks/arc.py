"""AI2 ARC: four-way science questions, answered by letter or by the likelihood of the options' text.

Rows are in the hub's schema: ``id``, ``question``, ``choices`` with ``text`` and ``label``, ``answerKey``.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from pipeline.errors import UserError
from pipeline.tasks.renderings import rotations
from pipeline.tasks.rows import ExampleFields, Row, as_text, check_options, read_examples
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.task import Task
from pipeline.tasks.types import DataRequest, Example, Rendering

#: The wordings of a prompt that does not show the options; the first is the usual one.
_WORDINGS = (
    "Question: {question}\nAnswer:",
    "Q: {question}\nA:",
    "{question}\nThe answer is:",
    "Here is a question about science.\n{question}\nAnswer:",
)


def read_letters(request: DataRequest) -> list[Example]:
    """Read examples whose prompts list the options; the answer is a letter."""

    def to_example(row: Row) -> ExampleFields:
        texts, reference = _choices(row)
        letters = tuple(ascii_uppercase[: len(texts)])

        def listing(options: Sequence[str]) -> str:
            listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, options))
            return f"Question: {row.text('question')}\n{listed}\nAnswer with the letter of the correct option only."

        return ExampleFields(
            question=listing(texts),
            answer=letters[reference],
            options=letters,
            renderings=tuple(
                Rendering(question=listing(options), answer=letters[index])
                for options, index in rotations(texts, reference, request.renderings)
            ),
        )

    examples = read_examples(request, task="arc", to_example=to_example)
    most = max(len(example.options) for example in examples)
    if request.renderings > most:
        raise UserError(
            f"--permutations {request.renderings}, but no example here has more than {most} options; give no more"
        )
    return examples


def read_texts(request: DataRequest) -> list[Example]:
    """Read examples whose prompts do not list the options; the answer is the text of an option."""

    def to_example(row: Row) -> ExampleFields:
        texts, reference = _choices(row)
        first, *others = (wording.format(question=row.text("question")) for wording in _WORDINGS[: request.renderings])
        return ExampleFields(
            question=first,
            answer=texts[reference],
            options=texts,
            renderings=tuple(Rendering(question=other, answer=texts[reference]) for other in others),
        )

    return read_examples(request, task="arc-likelihood", to_example=to_example)


def _choices(row: Row) -> tuple[tuple[str, ...], int]:
    """The options' texts and the index of the right one.

    Labels are letters in most rows and numbers in some; only their order matters.
    """
    key = row.text("answerKey")
    choices: Any = row.values.get("choices")
    if choices is None:
        row.text("choices")
    if not isinstance(choices, dict) or not all(isinstance(choices.get(part), list) for part in ("text", "label")):
        raise UserError(f"{row.where}: column 'choices' must hold an object with 'text' and 'label' lists")
    texts, labels = _texts(row, choices["text"]), _texts(row, choices["label"])
    if len(texts) != len(labels):
        raise UserError(
            f"{row.where}: 'choices' must have as many texts as labels, found {len(texts)} and {len(labels)}"
        )
    check_options(row, key, labels)
    if len(texts) > len(ascii_uppercase):
        raise UserError(f"{row.where}: more than {len(ascii_uppercase)} options")
    return tuple(texts), labels.index(key)


def _texts(row: Row, values: list[Any]) -> list[str]:
    """Texts of the column ``choices``; an option may be a number."""
    texts = []
    for value in values:
        text = as_text(value)
        if text is None:
            raise UserError(f"{row.where}: 'choices' must hold texts and numbers, none of them empty, found {value!r}")
        texts.append(row.checked("choices", text))
    return texts


ARC = Task(
    name="arc",
    summary="AI2 ARC, options in the prompt, answered by letter",
    read=read_letters,
    scoring=Choice(per_character=False),
    chat=True,
    hub_data="allenai/ai2_arc:ARC-Easy",
)

ARC_LIKELIHOOD = Task(
    name="arc-likelihood",
    summary="AI2 ARC, answered by the likelihood of each option's text per character",
    read=read_texts,
    scoring=Choice(per_character=True),
    chat=False,
    hub_data="allenai/ai2_arc:ARC-Easy",
    most_renderings=len(_WORDINGS),
)

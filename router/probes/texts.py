"""Labelled texts: rows of any data set, two columns of which are a text and its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.errors import UserError
from pipeline.storage import without_secrets
from pipeline.tasks.rows import Row, read_rows
from router.features.prompt_template import TEXT

#: Placeholder of the labels in the zero-shot prompt.
LABELS = "{labels}"
#: The default zero-shot prompt for a text's label.
QUESTION = f"Text: {TEXT}\nOne of {LABELS}.\nLabel:"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledText:
    """A text with its label.

    Attributes:
        text: The text.
        label: Label of the text; empty where labels were not read.
        where: The row of the data that holds the text, for messages.
    """

    text: str
    label: str = ""
    where: str


def read_texts(
    data: str, *, text_column: str, label_column: str | None = None, split: str = "train", limit: int | None = None
) -> list[LabelledText]:
    """Read texts from a file, a folder or a hub data set.

    Args:
        data: A file, a folder or the id of a hub data set.
        text_column: Column of the texts.
        label_column: Column of their labels: text, numbers, or true and false; None for texts alone.
        split: Split of a hub data set.
        limit: Number of rows to read, from the first; None for all.

    Raises:
        UserError: There is no such data or column, or a text or a label is empty; the message says where.
    """
    texts = [
        LabelledText(
            text=row.text(text_column),
            label="" if label_column is None else _label(row, label_column),
            where=row.where,
        )
        for row in islice(read_rows(data, split=split), limit)
    ]
    if not texts:
        raise UserError(f"{without_secrets(data)}: there are no rows in it")
    return texts


def labels_of(texts: Sequence[LabelledText], data: str) -> tuple[str, ...]:
    """The different labels of texts, sorted.

    Raises:
        UserError: All texts have the same label.
    """
    labels = tuple(sorted({text.label for text in texts}))
    if len(labels) < 2:
        raise UserError(f"every text of {without_secrets(data)} has the label {labels[0]!r}: there is nothing to learn")
    return labels


def check_labels(texts: Sequence[LabelledText], known: Sequence[str], data: str) -> None:
    """Refuse labels that a probe was not trained on.

    Raises:
        UserError: A text has such a label; the message names the labels.
    """
    unseen = Counter(text.label for text in texts if text.label not in set(known))
    if unseen:
        first = next(text for text in texts if text.label in unseen)
        named = ", ".join(f"{label!r} ({number} rows)" for label, number in unseen.most_common(_SHOWN))
        more = f" and {len(unseen) - _SHOWN} others" if len(unseen) > _SHOWN else ""
        raise UserError(
            f"{without_secrets(data)} has labels that the probe was not trained on: {named}{more}, first in "
            f"{first.where}; it knows: {', '.join(map(repr, known))}"
        )


def _label(row: Row, column: str) -> str:
    value = row.values.get(column)
    # Booleans are labels too.
    return str(value).lower() if isinstance(value, bool) else row.text(column)

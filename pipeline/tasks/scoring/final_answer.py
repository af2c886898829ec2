r"""The final answer that a written solution states: a box, or a sentence such as "The answer is 5".

A search tries many programs on an example and keeps those that are right. So a grader that takes any last number of a
text for its answer *selects* for texts that were cut at a lucky place. Here a text has a final answer only where it
states one, and has ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The beginning of a box in LaTeX.
_BOX = re.compile(r"\\f?boxed\b|\\fbox\b")
#: What stands in a box without braces: ``\boxed 5``, ``\boxed\pi``.
_BARE = re.compile(r"\s*(\\[A-Za-z]+|-?[^\s{}$\\.,;]+(?:[.,]\d+)*)(?=[\s$.,;)])")
#: A sentence that states the answer, up to its end; GSM8K's own mark is one too.
_SENTENCE = re.compile(
    r"(?:(?:answer|result|solution)\s*(?:is|:|=|equals)[:\s]*|####\s*)(?P<answer>[^\n]*?[^\s.])\s*(?:\.(?=\s|$)|\n|$)",
    re.IGNORECASE,
)
#: The thinking that a model writes before its answer.
_THINKING = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)
#: Words of a prompt that a model copies instead of an answer.
_ECHOES = frozenset({"", "answer", "your answer", "final answer", "...", r"\ldots", r"\dots"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A box in a text.

    Attributes:
        content: What stands in it; None where it is not closed.
        end: Index behind the box.
    """

    content: str | None
    end: int


def boxes(text: str) -> list[Box]:
    r"""The boxes of a text in order: ``\boxed{…}`` with any depth of braces, and ``\boxed 5``."""
    found = []
    position = 0
    while (start := _BOX.search(text, position)) is not None:
        box = _box_at(text, start.end())
        found.append(box)
        position = box.end
    return found


def ends_with_box(text: str) -> bool:
    """Whether a solution may end here: a box that states an answer has just been closed in it."""
    return any(box.content is not None and not is_echo(box.content) for box in boxes(without_thinking(text)))


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalAnswer:
    """The answer that a solution states.

    Attributes:
        text: The answer, without its box or sentence.
        in_words: Whether a sentence states it, so that words may stand around it.
    """

    text: str
    in_words: bool


def final_answer(text: str, *, ended: bool) -> FinalAnswer | None:
    """The final answer that a solution states.

    Args:
        text: The solution.
        ended: Whether the model ended it. A box is an answer in any text; a sentence only in one that has ended.

    Returns:
        The first box that is no echo, or the last sentence that states an answer; None where there is neither, or where
        a box behind it is open: the text was cut while the model corrected itself.
    """
    text = without_thinking(text)
    found = boxes(text)
    if found and found[-1].content is None:
        return None
    stated = [box.content for box in found if box.content is not None and not is_echo(box.content)]
    if stated:
        return FinalAnswer(text=stated[0], in_words=False)
    if not ended:
        return None
    sentences = [match["answer"].strip(" *$:") for match in _SENTENCE.finditer(text)]
    stated = [sentence for sentence in sentences if not is_echo(sentence)]
    return FinalAnswer(text=stated[-1], in_words=True) if stated else None


def is_echo(content: str) -> bool:
    r"""Whether a box holds the words of the prompt that asked for it, as ``\boxed{answer}``."""
    words = re.sub(r"\\text(?:bf|rm|it)?\{([^{}]*)\}", r"\1", content)
    return words.strip(" .{}").lower() in _ECHOES


def without_thinking(text: str) -> str:
    """A text without the thinking between ``<think>`` and ``</think>``, which is never an answer.

    Where a chat template has opened the thinking, the text holds its end alone.
    """
    return _THINKING.sub("", text).rpartition("</think>")[2]


def _box_at(text: str, start: int) -> Box:
    opening = start
    while opening < len(text) and text[opening].isspace():
        opening += 1
    if opening == len(text):
        return Box(content=None, end=len(text))
    if text[opening] != "{":
        bare = _BARE.match(text, start)
        return Box(content=None, end=len(text)) if bare is None else Box(content=bare[1], end=bare.end())
    depth, position = 0, opening
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1  # an escaped brace is no brace
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return Box(content=text[opening + 1 : position], end=position + 1)
        position += 1
    return Box(content=None, end=len(text))

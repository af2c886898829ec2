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
#: What stands in a box without braces: a number or a letter. A LaTeX command is read with its arguments.
_BARE = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?%?|-?[A-Za-z]")
_COMMAND = re.compile(r"-?\\[A-Za-z]+")
_NUM_ARGUMENTS = {r"\frac": 2, r"\dfrac": 2, r"\tfrac": 2, r"\sqrt": 1, r"\text": 1}
#: A sentence that states the answer, up to its end.
_SENTENCE = re.compile(
    r"\banswer\b[*_\s]*(?:is\b|:|=)[:\s*_]*(?P<answer>[^\n]*?[^\s.])[\s*_]*(?:\.(?=[\s*_]|$)|\n|$)", re.IGNORECASE
)
_AMOUNT = r"-?(?:\\?\$|€|£)?\d+(?:,\d{3})*(?:\.\d+)?"
#: GSM8K's own mark, at the beginning of a line, and a number behind it.
_MARK = re.compile(rf"^[ \t]*####[ \t]+(?P<answer>{_AMOUNT}(?:[ \t]*[A-Za-z%]+)?)[ \t.]*$", re.MULTILINE)
#: The parts of a sentence that may be its answer: mathematics, or a number at the beginning with the words behind it.
_MATHEMATICS = re.compile(r"(?<!\\)\$([^$]+)(?<!\\)\$|\\\((.+?)\\\)")
_NUMBER_FIRST = re.compile(
    rf"(?:(?:about|approximately|equal to|exactly)\s+)?(?P<answer>{_AMOUNT}(?:/\d+)?%?(?:\s+[A-Za-z]+)*)", re.IGNORECASE
)
_DENIAL = re.compile(r"(?:not|never|n't)\b", re.IGNORECASE)
_MOST_WORDS = 4
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


def boxes(text: str, *, ended: bool = False) -> list[Box]:
    r"""The boxes of a text in order: ``\boxed{…}`` with any depth of braces, ``\boxed 5`` and ``\boxed\frac{1}{2}``.

    Args:
        text: The text.
        ended: Whether no further text follows, which might go on with a box without braces.
    """
    found: list[Box] = []
    for start in _BOX.finditer(text):
        if found and start.start() < found[-1].end:
            continue  # a box in a box
        box = _box_at(text, start.end(), ended=ended)
        if box is not None:
            found.append(box)
    return found


def ends_with_box(text: str) -> bool:
    """Whether a solution may end here: a box that states an answer has just been closed in it."""
    return any(box.content is not None and not is_echo(box.content) for box in boxes(without_thinking(text)))


def final_answer(text: str, *, ended: bool) -> str | None:
    """The final answer that a solution states.

    Args:
        text: The solution.
        ended: Whether the model ended it. A box is an answer in any text; a sentence only in one that has ended.

    Returns:
        The content of the first box that is no echo, or what the last sentence says that states an answer; None where
        there is neither, or where a box behind it is open: the text was cut while the model corrected itself.
    """
    text = without_thinking(text)
    found = boxes(text, ended=ended)
    if found and found[-1].content is None:
        return None
    for box in found:
        if box.content is not None and not is_echo(box.content):
            return box.content
    if not ended:
        return None
    stated = {match.start(): _said(match["answer"]) for match in _SENTENCE.finditer(text)}
    stated |= {match.start(): match["answer"].replace("\\$", "$") for match in _MARK.finditer(text)}
    answers = [stated[place] for place in sorted(stated) if stated[place] is not None]
    return answers[-1] if answers else None


def _said(sentence: str) -> str | None:
    """The answer in the part of a sentence behind "the answer is"; None where it says several things or none."""
    sentence = sentence.strip(" *_:")
    if _DENIAL.match(sentence):
        return None
    spans = [match[1] or match[2] for match in _MATHEMATICS.finditer(sentence)]
    if spans:
        return spans[0].strip() if len(spans) == 1 else None
    # "2 * 9 = 18" says 18.
    sentence = sentence.rpartition("=")[2].strip()
    number = _NUMBER_FIRST.match(sentence)
    if number is not None:
        rest = sentence[number.end() :]
        # Further numbers, or operators, make another answer of it: "5, not 6" says too much to be read by a rule.
        return None if re.search(r"\d|[-+*/^\\]", rest) else number["answer"].strip()
    is_word = 0 < len(sentence.split()) <= _MOST_WORDS and not re.search(r"\d", sentence)
    return sentence if is_word and not is_echo(sentence) else None


def is_echo(content: str) -> bool:
    r"""Whether a box holds the words of the prompt that asked for it, as ``\boxed{answer}``."""
    words = re.sub(r"\\text(?:bf|rm|it)?\{([^{}]*)\}", r"\1", content)
    return words.strip(" .{}").lower() in _ECHOES


def without_thinking(text: str) -> str:
    """A text without the thinking between ``<think>`` and ``</think>``, which is never an answer.

    Where a chat template has opened the thinking, the text holds its end alone.
    """
    return _THINKING.sub("", text).rpartition("</think>")[2]


def _box_at(text: str, start: int, *, ended: bool) -> Box | None:
    """The box whose beginning ends at ``start``; None where only the word stands there."""
    opening = start
    while opening < len(text) and text[opening].isspace():
        opening += 1
    if opening == len(text):
        return None if ended else Box(content=None, end=len(text))
    if text[opening] == "{":
        end = _closing(text, opening)
        return Box(content=None if end is None else text[opening + 1 : end - 1], end=len(text) if end is None else end)
    command = _COMMAND.match(text, opening)
    bare = _BARE.match(text, opening)
    end = _end_of_command(text, command) if command is not None else None if bare is None else bare.end()
    if command is None and bare is None:
        return None
    if end is None or (end == len(text) and not ended):
        return Box(content=None, end=len(text))  # more digits, or arguments, may follow
    follows = text[end : end + 1]
    return None if follows.isalnum() else Box(content=text[opening:end], end=end)


def _end_of_command(text: str, command: re.Match[str]) -> int | None:
    """The index behind a LaTeX command and its arguments; None where the text ends before."""
    end: int | None = command.end()
    for _ in range(_NUM_ARGUMENTS.get(command[0].lstrip("-"), 0)):
        if end is None or end >= len(text):
            return None
        end = _closing(text, end) if text[end] == "{" else end + 1
    return end


def _closing(text: str, opening: int) -> int | None:
    """The index behind the brace that closes the one at ``opening``; None where none does."""
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
                return position + 1
        position += 1
    return None

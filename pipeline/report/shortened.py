"""Texts of examples on one line: the end of a prompt, the beginning of a reference, both ends of an answer."""

from __future__ import annotations

from collections.abc import Sequence

#: Most characters of a text that is shown.
MOST_CHARACTERS = 90
#: Fewest characters of an end that all prompts share for it to be the chat template's, and no question mark.
_TEMPLATE_CHARACTERS = 10


def ends_of(prompts: Sequence[str], most: int = MOST_CHARACTERS) -> list[str]:
    r"""The last characters of each prompt, its line breaks as ``\n``.

    A long prompt is shown without the end that all prompts share: a chat template's, behind every question.
    """
    cut = len(_shared_end(prompts))
    cut = cut if cut >= _TEMPLATE_CHARACTERS else 0
    return [
        end_of(prompt[: len(prompt) - cut], most - 1) + "…"
        if cut and len(_on_one_line(prompt)) > most
        else end_of(prompt, most)
        for prompt in prompts
    ]


def _shared_end(prompts: Sequence[str]) -> str:
    """The end that different prompts share, without the mark that ends a question."""
    if len(set(prompts)) < 2:
        return ""
    backwards = [prompt[::-1] for prompt in prompts]
    one, other = min(backwards), max(backwards)  # what the first and the last in order share, all share
    length = next((n for n, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    return one[:length][::-1].lstrip("?.!")


def end_of(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""The last characters of a text, its line breaks as ``\n``: a prompt's question stands at its end."""
    line = _on_one_line(text)
    return line if len(line) <= most else "…" + line[-(most - 1) :]


def beginning_of(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""The first characters of a text, its line breaks as ``\n``."""
    line = _on_one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def both_ends_of(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""The first and the last characters of a text, its line breaks as ``\n``: a solution ends with its answer."""
    line = _on_one_line(text)
    first = most // 3
    return line if len(line) <= most else line[:first] + "…" + line[-(most - first - 1) :]


def _on_one_line(text: str) -> str:
    """A text whose line breaks and other control characters are shown as in a Python string."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)

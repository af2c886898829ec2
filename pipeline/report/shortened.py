"""Texts of examples on one line: the end of a prompt, the beginning of an answer."""

from __future__ import annotations

#: Most characters of a text that is shown.
MOST_CHARACTERS = 90


def end_of(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""The last characters of a text, its line breaks as ``\n``: a prompt's question stands at its end."""
    line = _on_one_line(text)
    return line if len(line) <= most else "…" + line[-(most - 1) :]


def beginning_of(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""The first characters of a text, its line breaks as ``\n``."""
    line = _on_one_line(text)
    return line if len(line) <= most else line[: most - 1] + "…"


def _on_one_line(text: str) -> str:
    """A text whose line breaks and other control characters are shown as in a Python string."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)

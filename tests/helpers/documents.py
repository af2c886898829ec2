"""The fenced blocks of the documents, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: docs/extending.md is followed word for word by tests of its own.
EXTENDING = REPOSITORY / "docs" / "extending.md"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a document."""
    text = path.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        yield Block(
            document=str(path.relative_to(REPOSITORY)),
            line=text[: found.start()].count("\n") + 1,
            language=found.group(1),
            text=found.group(2),
        )


def commands(block: Block) -> list[str]:
    """The commands of a console block: a line with ``$`` each, with the lines that continue it."""
    text = re.sub(r"\\\n\s*", "", block.text)
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]

"""Outcomes that were seen after deployment: which program answered a prompt, and whether the answer was right.

A line a prompt, as JSON: ``{"prompt": "7 + 5 =", "program": "0-11,13-29", "right": true}``, or with a ``score`` from 0
to 1 in place of ``right``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.program import LayerProgram


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """An outcome of a router's use.

    Attributes:
        prompt: The exact text of the prompt.
        program: The program that answered it.
        score: 1 for a right answer, 0 for a wrong one, or something between.
    """

    prompt: str
    program: LayerProgram
    score: float

    def to_line(self) -> str:
        """The outcome as a line of a file."""
        record: dict[str, Any] = {"prompt": self.prompt, "program": str(self.program)}
        record |= {"right": bool(self.score)} if self.score in (0, 1) else {"score": self.score}
        return json.dumps(record) + "\n"


def read_feedback(file: Path, *, num_layers: int) -> list[Feedback]:
    """Read a file of outcomes; empty lines are none.

    Args:
        file: The file.
        num_layers: Depth L of the model.

    Raises:
        UserError: The file cannot be read, or a line is no outcome; the message says which and why.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--feedback {file} cannot be read: {error}") from None
    return [
        _outcome(line, f"{file}, line {number}", num_layers)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def append_feedback(file: Path, outcomes: Sequence[Feedback]) -> None:
    """Write outcomes behind those that a file holds.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with file.open("a", encoding="utf-8") as lines:
            lines.writelines(outcome.to_line() for outcome in outcomes)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from None


def _outcome(line: str, where: str, num_layers: int) -> Feedback:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: no JSON ({error})") from None
    if not isinstance(record, dict) or not _is_text(record.get("prompt")):
        raise UserError(f"{where}: 'prompt' must be a text of whole characters")
    if ("right" in record) == ("score" in record):
        raise UserError(f"{where}: give either 'right' (true or false) or 'score' (0 to 1)")
    score = record.get("right", record.get("score"))
    if "right" in record and score not in (True, False):
        raise UserError(f"{where}: 'right' must be true or false, found {score!r}; a share is a 'score'")
    if not isinstance(score, bool | int | float) or not 0 <= score <= 1:
        raise UserError(f"{where}: 'score' must be a number from 0 to 1, found {score!r}")
    try:
        program = LayerProgram.parse(str(record.get("program")), num_layers)
    except ValueError as error:
        raise UserError(f"{where}: 'program': {error}") from None
    return Feedback(prompt=record["prompt"], program=program, score=float(score))


def _is_text(value: object) -> bool:
    """Whether a value is a text that a tokenizer takes: not empty, and without half a character of JSON's escapes."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False

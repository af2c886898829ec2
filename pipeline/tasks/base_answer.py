"""The base model's answer to an example, as a user is shown it before a search begins."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.tasks.types import Reason


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseAnswer:
    """The base model's answer to an example.

    Attributes:
        prompt: The exact text given to the tokenizer.
        references: All accepted answers, the reference answer first.
        response: The base model's answer.
        correct: Whether it is right.
        reason: Why it is right or wrong.
        reference_fits: Whether the reference answer is short enough to be written within ``--max-new-tokens``.
    """

    prompt: str
    references: tuple[str, ...]
    response: str
    correct: bool
    reason: Reason
    reference_fits: bool = True

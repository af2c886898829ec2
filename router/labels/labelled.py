"""A question with its label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.program import LayerProgram
from router.artifact.base_model import BaseModelRef

if TYPE_CHECKING:
    pass

#: How often a layer may run: skip, execute, repeat. A class is its own count.
NUM_CLASSES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """One question with its label.

    Attributes:
        example_id: The question.
        task: Its task.
        prompt: The exact text given to the tokenizer.
        counts: How often each layer should run, 0 to 2.
    """

    example_id: str
    task: str
    prompt: str
    counts: tuple[int, ...]

    @property
    def program(self) -> LayerProgram:
        """The label as a program."""
        return LayerProgram.from_counts(self.counts)


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """What one or more path data sets teach.

    Attributes:
        base: The frozen model that was searched.
        dtype: The precision in which it was searched.
        num_layers: Its depth L.
        add_special_tokens: Whether the tokenizer adds special tokens to the prompts.
        rows: A row for each question, in the order of the data sets.
        marks: Of every prompt, and of every example, that was searched; see ``router.artifact.base_model.mark``.
        left_out: Questions without a label, by the reason.
    """

    base: BaseModelRef
    dtype: str
    num_layers: int
    add_special_tokens: bool
    rows: list[Labelled]
    marks: frozenset[int]
    left_out: dict[str, int] = field(default_factory=dict)


def sayable(counts: Sequence[int] | None) -> bool:
    """Whether routers can say a program: by counts, and none above a repeat."""
    return counts is not None and max(counts) < NUM_CLASSES


def is_held_out(row: Labelled, fraction: float, *, seed: int = 0) -> bool:
    """Whether a question is held out: decided by its prompt, so that it is the same in every run and order."""
    digest = hashlib.sha256(f"{seed} {row.prompt}".encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64

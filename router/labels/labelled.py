"""An example with its label, and the labels of one training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.program import LayerProgram

#: How often a layer may run: skip, execute, repeat. A class is its own count.
NUM_CLASSES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """One example with its label.

    Attributes:
        example_id: Id of the example.
        task: Name of its task.
        prompt: The exact text given to the tokenizer.
        counts: Number of times that each layer should run, 0 to 2.
        shares: What is expected of each number of each layer, ``[L][3]``; None where the label is certain.
    """

    example_id: str
    task: str
    prompt: str
    counts: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...] | None = None

    @property
    def program(self) -> LayerProgram:
        """The program that has the label's counts."""
        return LayerProgram.from_counts(self.counts)


@dataclass(frozen=True, kw_only=True)
class TrainingLabels:
    """The labels of one training.

    Attributes:
        rows: All labelled examples, in the order of the runs.
        train: The labelled examples to train on.
        held_out: The labelled examples that decide when training stops.
        left_out: Number of examples without a label, by the reason.
        description: The name of the network that is fitted to the labels, for messages.
        nothing_to_learn: Why no network can be fitted to the labels, and what to change; None where one can.
    """

    rows: list[Labelled]
    train: list[Labelled]
    held_out: list[Labelled]
    left_out: dict[str, int] = field(default_factory=dict)
    description: str
    nothing_to_learn: str | None = None


def expressible_as_counts(counts: Sequence[int] | None) -> bool:
    """Whether routers can express a program: it keeps the layers' order, and runs none more than twice."""
    return counts is not None and max(counts) < NUM_CLASSES


def is_held_out(row: Labelled, fraction: float, *, seed: int = 0) -> bool:
    """Whether an example is held out: decided by its prompt, so that it is the same in every run and order."""
    digest = hashlib.sha256(f"{seed} {row.prompt}".encode()).digest()
    return int.from_bytes(digest[:8]) < fraction * 2**64


def held_out_prompts(rows: Sequence[Labelled], fraction: float, *, seed: int) -> frozenset[str]:
    """The prompts of the examples that are held out, whose outcomes decide no label that programs share."""
    return frozenset(row.prompt for row in rows if is_held_out(row, fraction, seed=seed))


def split(rows: Sequence[Labelled], fraction: float, *, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """The rows to train on, and the held-out ones.

    Raises:
        UserError: One of the two is empty.
    """
    held_out = [row for row in rows if is_held_out(row, fraction, seed=seed)]
    train = [row for row in rows if not is_held_out(row, fraction, seed=seed)]
    if not held_out or not train:
        raise UserError(
            f"{len(rows)} examples are too few: {len(train)} to train on and {len(held_out)} held out; "
            "search more of them, or hold out another share with --held-out"
        )
    return train, held_out


def describe_left_out(left_out: dict[str, int]) -> str:
    """The examples without a label, for the end of a message."""
    return "".join(f"; left out, {reason}: {number}" for reason, number in left_out.items())

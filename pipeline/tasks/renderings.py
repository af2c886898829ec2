"""Scoring over several renderings of an example: a program is right only if it is right under every one.

A label-guided search also finds lucky guesses: with four options it "corrects" nearly all examples (CoLa's 95.8 % on
ARC-Easy, for six models alike). So an example can have K renderings: with its options rotated, if the prompt shows
them, or in other words. A program is right if its answers to all renderings are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.program import LayerProgram

if TYPE_CHECKING:
    from pipeline.tasks.types import Outcome, PreparedExample, Runner, Scoring


def rotations(options: Sequence[str], reference: int, number: int) -> list[tuple[list[str], int]]:
    """Other orders of an example's options.

    Args:
        options: The options' texts.
        reference: Index of the right option.
        number: Number of orders, the given one included; there are at most as many as options.

    Returns:
        For each further order, the options and the index of the right one.
    """
    return [
        ([*options[shift:], *options[:shift]], (reference - shift) % len(options))
        for shift in range(1, min(number, len(options)))
    ]


def score_renderings(
    scoring: Scoring,
    model: Runner,
    examples: Sequence[PreparedExample],
    programs: Sequence[LayerProgram],
    *,
    need_response: bool,
) -> list[Outcome]:
    """Score the first rendering of each example, and the others of those whose first answer is right.

    The margin is the smallest of those computed. If the first answer is wrong, the other renderings are skipped.

    Args:
        scoring: The scoring of one answer.
        model: The model that runs the programs.
        examples: Examples, with or without other renderings.
        programs: One program for each example.
        need_response: Whether the response to the first rendering is needed in full.
    """
    outcomes = [
        replace(outcome, correct_as_asked=outcome.correct) if prepared.renderings else outcome
        for prepared, outcome in zip(
            examples, scoring.score(model, examples, programs, need_response=need_response), strict=True
        )
    ]
    again = [
        (index, rendering)
        for index, (prepared, outcome) in enumerate(zip(examples, outcomes))
        if outcome.correct
        for rendering in prepared.renderings
    ]
    if again:
        others = scoring.score(
            model, [rendering for _, rendering in again], [programs[index] for index, _ in again], need_response=False
        )
        for (index, _), other in zip(again, others, strict=True):
            outcomes[index] = _both(outcomes[index], other)
    return outcomes


def _both(so_far: Outcome, other: Outcome) -> Outcome:
    """The outcome over the renderings scored so far and one more."""
    return replace(
        so_far,
        correct=so_far.correct and other.correct,
        reason=other.reason if so_far.correct else so_far.reason,
        margin=min(so_far.margin, other.margin),
        layer_executions=so_far.layer_executions + other.layer_executions,
    )

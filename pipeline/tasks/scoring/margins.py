"""Margins: how far the logits are from the opposite result, and the results that they alone decide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pipeline.tasks.types import Reason

if TYPE_CHECKING:
    import torch

#: One pass over the prompt keeps the processor busy with few programs; a token at a time takes many.
FEW_LEAVES = 1
MANY_LEAVES = 8


class AnswerResult(NamedTuple):
    """The correctness of an answer, its reason, and the margin."""

    correct: bool
    reason: Reason
    margin: float


def result_of(right: bool, margin: float, *, wrong: Reason = "unequal") -> AnswerResult:
    """The result of an answer with its margin.

    An answer with a tie is wrong: the vocabulary's order chose it among equal logits, which bfloat16 often gives. An
    answer whose margin is NaN (the logits overflow) is wrong with margin -inf.

    Args:
        right: Whether the answer is the reference.
        margin: The margin: positive where right, negative where wrong.
        wrong: The reason where the answer is not the reference.
    """
    if math.isnan(margin):
        return AnswerResult(False, "ungradable", -math.inf)
    if margin == 0:
        return AnswerResult(False, "tie", 0.0)
    return AnswerResult(True, "ended", margin) if right else AnswerResult(False, wrong, margin)


def smaller(gap: float, other: float) -> float:
    """The smaller of two gaps; NaN if either is NaN."""
    return gap if gap < other or math.isnan(gap) else other


def least_gap(logits: torch.Tensor) -> float:
    """The smallest distance between the likeliest token's logit and the next one's, over ``[positions, vocab]``."""
    if not len(logits):
        return math.inf
    top = logits.topk(2, dim=-1).values
    return float((top[:, 0] - top[:, 1]).min())

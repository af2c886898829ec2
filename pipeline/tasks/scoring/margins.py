"""Margins: how far the logits are from the opposite result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: One pass over the prompt keeps the processor busy with few programs; a token at a time takes many.
FEW_LEAVES = 1
MANY_LEAVES = 8


def wrong_if_nan(correct: bool, margin: float) -> tuple[bool, float]:
    """The correctness and the margin of a result; wrong with margin -inf if the margin is NaN (the logits overflow)."""
    return (False, -math.inf) if math.isnan(margin) else (correct, margin)


def smaller(gap: float, other: float) -> float:
    """The smaller of two gaps; NaN if either is NaN."""
    return gap if gap < other or math.isnan(gap) else other


def least_gap(logits: torch.Tensor) -> float:
    """The smallest distance between the likeliest token's logit and the next one's, over ``[positions, vocab]``."""
    if not len(logits):
        return math.inf
    top = logits.topk(2, dim=-1).values
    return float((top[:, 0] - top[:, 1]).min())

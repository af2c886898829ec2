"""The learning rate of every training here: a warm-up, then a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable


def cosine_with_warmup(num_steps: int, warmup: int) -> Callable[[int], float]:
    """The learning rate's share of its highest, by the step.

    Args:
        num_steps: Of the whole training.
        warmup: Of these, the ones until the highest is there.
    """

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, num_steps - warmup))))

    return share

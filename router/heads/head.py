"""What a router is trained to be: a network that reads prompts as they pass, and the programs that it makes of them.

There are two: a router for every layer (``per_layer``, the paper's), and one probe behind an early exit
(``early_exit``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn

from router.heads.steering import Steering

Array = np.ndarray[Any, Any]


class Head(Protocol):
    """A router's networks, and how programs come of what they say."""

    name: ClassVar[str]
    """What ``--head`` calls it."""

    @property
    def network(self) -> nn.Module:
        """What is learnt."""
        ...

    @property
    def num_layers(self) -> int:
        """Depth L of the base model."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width D of its residual stream."""
        ...

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of what it says of one prompt."""
        ...

    @property
    def least_layers(self) -> int:
        """Layers below which it can keep no sequence."""
        ...

    def settings(self) -> dict[str, Any]:
        """All but its weights, as JSON takes it."""
        ...

    def on(self, device: torch.device) -> Head:
        """A copy on a device."""
        ...

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> Steering:
        """What decides under a budget.

        Args:
            sample: Log-probabilities that it gave on held-out prompts, ``[N, *sample_shape]``.
            limit: Most layers that a sequence may run, at least ``least_layers``; None for no bound.
            average: Layers on average, as a fraction of L, as far as the held-out prompts tell; None for what is
                likeliest.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a training came to.

    Attributes:
        head: The head.
        sample: Log-probabilities that it gave on held-out prompts, ``[N, *sample_shape]``.
        best: The record of the epoch that was kept.
        f1: F1 on the held-out questions, by class.
        made: What its card and configuration tell of it, beside what all heads tell.
        draw: Draws its training into a file.
    """

    head: Head
    sample: torch.Tensor
    best: dict[str, float]
    f1: dict[str, float]
    made: dict[str, Any]
    draw: Callable[[Path], None]

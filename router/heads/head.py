"""The protocol of a trained router: a network, its settings, and the programs that it chooses for prompts.

``registry`` lists the kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from torch import nn

from router.heads.steering import Steering

Array = np.ndarray[Any, Any]


class Head(Protocol):
    """A trained kind of router, without the base model."""

    name: ClassVar[str]
    """Name of the kind, in ``--head`` and in ``config.json``."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """A head of the sizes that ``settings`` gave, with weights that are yet to be loaded.

        Raises:
            KeyError, TypeError, ValueError: The settings are not valid.
        """
        ...

    @property
    def network(self) -> nn.Module:
        """The trained network, whose state is saved."""
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
        """Shape of the log-probabilities of one prompt."""
        ...

    @property
    def least_layers(self) -> int:
        """Length of the shortest program that the head can choose."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as JSON values for ``config.json``."""
        ...

    def on(self, device: torch.device) -> Self:
        """A copy of the head with its networks on a device."""
        ...

    def steering(self, sample: Array, *, limit: int | None = None, average: float | None = None) -> Steering:
        """The steering under a budget.

        Args:
            sample: The head's log-probabilities on held-out prompts, ``[N, *sample_shape]``.
            limit: Most layers that a sequence may run, at least ``least_layers``; None for no bound.
            average: Mean layers over the held-out prompts, as a fraction of L; None for the likeliest programs.
        """
        ...

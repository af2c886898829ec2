"""What a routed model asks while it reads prompts: how often does this layer run, in each row?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

Array = np.ndarray[Any, Any]


class Decisions(Protocol):
    """One batch of prompts on its way through the layers, asked about them in order."""

    @property
    def known(self) -> Mapping[int, int]:
        """How often layers run of which that is known before anything is read; nobody is asked about those."""
        ...

    def decide(self, layer: int, hidden: torch.Tensor) -> Array:
        """How often a layer runs in each row, ``[B]``, from what enters it, ``[B, T, D]``."""
        ...


class Steering(Protocol):
    """Decides for batches of prompts, under one budget."""

    @property
    def num_layers(self) -> int:
        """Depth L of the model."""
        ...

    def begin(self, mask: torch.Tensor) -> Decisions:
        """A batch comes whose tokens are no padding where the mask ``[B, T]`` is 1."""
        ...

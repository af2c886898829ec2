"""Protocols by which a routed model decides which layers run, while it reads prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.program import LayerProgram

Array = np.ndarray[Any, Any]


class Decisions(Protocol):
    """The decisions for one batch of prompts, made layer by layer in order."""

    @property
    def known(self) -> Mapping[int, int]:
        """Runs of the layers that are decided before anything is read; ``decide`` is not called for those."""
        ...

    def decide(self, layer: int, hidden: torch.Tensor) -> Array | Sequence[LayerProgram]:
        """The count of a layer in each row, ``[B]``, from the layer's input, ``[B, T, D]``.

        Or each row's program, which decides all further layers too: up to here it is what ran.
        """
        ...


class Steering(Protocol):
    """Decides for batches of prompts, under one budget."""

    @property
    def num_layers(self) -> int:
        """Depth L of the model."""
        ...

    def begin(self, mask: torch.Tensor) -> Decisions:
        """Start the decisions of a batch; the mask ``[B, T]`` is 0 at padding."""
        ...

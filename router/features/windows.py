"""Means over windows of a prompt's tokens, the inputs of the routers of all layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def window_weights(
    lengths: np.ndarray[Any, Any], starts: np.ndarray[Any, Any], num_tokens: int, num_windows: int
) -> np.ndarray[Any, Any]:
    """The weights that take the mean of each window of each row, without padding.

    Window w of n tokens goes from token ``w·n // W`` to token ``(w+1)·n // W``, and holds at least one: the windows
    of a prompt that is shorter than W tokens hold some tokens several times.

    Args:
        lengths: Tokens n of each row, ``[B]``, at least 1.
        starts: Index of each row's first token, ``[B]``, behind the padding.
        num_tokens: Tokens T of the padded rows.
        num_windows: Number of windows W.

    Returns:
        ``[B, W, T]`` in float32: a row of it times states ``[T, D]`` gives the windows' means ``[W, D]``.
    """
    window = np.arange(num_windows)
    first = window * lengths[:, None] // num_windows
    last = np.maximum((window + 1) * lengths[:, None] // num_windows, first + 1)
    position = np.arange(num_tokens) - starts[:, None, None]
    inside = (position >= first[:, :, None]) & (position < last[:, :, None])
    weights: np.ndarray[Any, Any] = inside / (last - first).astype(np.float32)[:, :, None]
    return weights


def pool_windows(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Means of windows: states ``[B, T, D]`` and ``window_weights`` to ``[B, W, D]``, in float32."""
    return torch.bmm(weights.to(hidden.dtype), hidden).float()

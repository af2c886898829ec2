"""The predicted probability that a program is right on an example: leave-one-out ridge regression.

One result says little: on an example that the model answers by luck any program may be right. Ridge regression from
the base model's hidden states on a prompt to the programs' results averages over examples whose hidden states are
alike; each example's own result is left out of its prediction.

Shapes: N examples, M programs, L layers, W windows, D hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Most principal components of the inputs.
COMPONENTS = 256
#: Ridge penalties that are tried, in units of the inputs' mean variance.
RIDGES = np.geomspace(1e-3, 1e4, 22)


def summarize(features: Array) -> Array:
    """The regression's inputs from window features of the base model: ``[N, L, W, D]`` to ``[N, 8·D]``.

    The mean over the windows, and the last window, at four depths.
    """
    depth = features.shape[1]
    layers = [depth // 6, depth // 2, 3 * depth // 4, depth - 1]
    chosen = features[:, layers].astype(np.float32)
    return np.concatenate([chosen.mean(2), chosen[:, :, -1]], axis=2).reshape(len(features), -1)


def leave_one_out(inputs: Array, outcomes: Array) -> Array:
    """Predict each example's outcomes from all other examples.

    Args:
        inputs: Inputs of each example, ``[N, …]``, N at least 2.
        outcomes: Outcomes of each example, ``[N, M]``.

    Returns:
        Predictions ``[N, M]``, by the penalty of the least squared error, the same for all programs.
    """
    scores = components(inputs)
    mean = outcomes.mean(0)
    left, sizes, _ = np.linalg.svd(scores, full_matrices=False)
    variance = np.square(sizes)
    best_error, best = np.inf, np.broadcast_to(mean, outcomes.shape)
    for ridge in RIDGES * max(variance.mean(), 1e-12):
        hat = left * (variance / (variance + ridge))
        fitted = mean + hat @ (left.T @ (outcomes - mean))
        # The leverage: how much an example's own outcome counts in its fitted value, through the mean too.
        own = np.minimum((hat * left).sum(1) + 1 / len(outcomes), 1 - 1e-6)
        expected = outcomes - (outcomes - fitted) / (1 - own)[:, None]
        error = float(np.square(outcomes - expected).mean())
        if error < best_error:
            best_error, best = error, expected
    return np.asarray(best)


def components(inputs: Array) -> Array:
    """Principal components of standardized inputs, centred."""
    from sklearn.decomposition import PCA

    deviation = inputs.std(0)
    # A unit that is the same for every prompt holds no information: do not blow up its rounding.
    standardized = (inputs - inputs.mean(0)) / np.maximum(deviation, 1e-3 * deviation.mean() + 1e-9)
    number = min(COMPONENTS, *standardized.shape)
    scores = PCA(number, svd_solver="randomized", random_state=0).fit_transform(standardized)
    return np.asarray(scores - scores.mean(0))

"""What a question can expect of each program, as far as other questions like it tell.

One verdict says little: on a question that the model answers by luck any program may be right. Ridge regression
from what the frozen model makes of a prompt to the programs' verdicts averages over questions that the model
itself finds alike; each question's own verdict is left out of what is expected of it.

Shapes: N questions, M programs, L layers, W windows, D hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Directions in which prompts are told apart, at most.
COMPONENTS = 256
#: How much the regression is drawn to the mean over all questions; in terms of the inputs' mean variance.
RIDGES = np.geomspace(1e-3, 1e4, 22)


def summarize(features: Array) -> Array:
    """What a regression reads of prompts: ``[N, L, W, D]`` to ``[N, 8·D]``.

    The mean over the windows, and the last window, at four depths of the untouched model.
    """
    depth = features.shape[1]
    layers = [depth // 6, depth // 2, 3 * depth // 4, depth - 1]
    chosen = features[:, layers].astype(np.float32)
    return np.concatenate([chosen.mean(2), chosen[:, :, -1]], axis=2).reshape(len(features), -1)


def leave_one_out(inputs: Array, outcomes: Array) -> Array:
    """Expected outcomes of each question from all other questions.

    Args:
        inputs: What is known of each question, ``[N, …]``, N at least 2.
        outcomes: What was seen, ``[N, M]``.

    Returns:
        ``[N, M]``, by the ridge of the least squared error, the same for all programs.
    """
    scores = components(inputs)
    mean = outcomes.mean(0)
    left, sizes, _ = np.linalg.svd(scores, full_matrices=False)
    variance = np.square(sizes)
    best_error, best = np.inf, np.broadcast_to(mean, outcomes.shape)
    for ridge in RIDGES * max(variance.mean(), 1e-12):
        hat = left * (variance / (variance + ridge))
        fitted = mean + hat @ (left.T @ (outcomes - mean))
        # What a question's own outcome has to say in its fitted value; the mean counts too.
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
    # A unit that says the same of every prompt says nothing of any: do not blow up its rounding.
    standardized = (inputs - inputs.mean(0)) / np.maximum(deviation, 1e-3 * deviation.mean() + 1e-9)
    number = min(COMPONENTS, *standardized.shape)
    scores = PCA(number, svd_solver="randomized", random_state=0).fit_transform(standardized)
    return np.asarray(scores - scores.mean(0))

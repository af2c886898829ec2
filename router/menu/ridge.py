"""The predicted probability that a program is right on an example: leave-one-out ridge regression.

One result says little: on an example that the model answers by luck any program may be right. Ridge regression from
the base model's hidden states on a prompt to the programs' results averages over examples whose hidden states are
alike; each example's own result is left out of its prediction.

Shapes: N examples, M programs, F inputs, K components, L layers, W windows, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class RidgeRegression:
    """A fitted ridge regression.

    Attributes:
        weights: Weights of the inputs, ``[F, M]``.
        bias: Constant of each outcome, ``[M]``.
        left_out: Prediction of each example from all other examples, ``[N, M]``.
        of_components: Weights of the components, ``[K, M]``; behind them each outcome's constant is its mean.
        mean: Mean of each outcome, ``[M]``.
        ridge: The penalty.
    """

    weights: Array
    bias: Array
    left_out: Array
    of_components: Array
    mean: Array
    ridge: float

    def predict(self, inputs: Array) -> Array:
        """Predictions for further examples, ``[N, F]`` to ``[N, M]``."""
        return np.asarray(inputs.reshape(len(inputs), -1) @ self.weights + self.bias)


def leave_one_out(inputs: Array, outcomes: Array) -> Array:
    """Predict each example's outcomes from all other examples; see ``fit_ridge``."""
    return fit_ridge(principal_components(inputs), outcomes).left_out


def fit_ridge(found: PrincipalComponents, outcomes: Array) -> RidgeRegression:
    """Fit outcomes by ridge regression on the principal components of standardized inputs.

    Args:
        found: The components of each example's inputs; N is at least 2.
        outcomes: Outcomes of each example, ``[N, M]``.

    Returns:
        The regression with the penalty whose left-out predictions have the least squared error, the same for all
        outcomes.
    """
    mean = outcomes.mean(0)
    left, sizes, right = np.linalg.svd(found.scores, full_matrices=False)
    projected = left.T @ (outcomes - mean)
    variance = np.square(sizes)
    best_error, best, best_ridge = np.inf, np.broadcast_to(mean, outcomes.shape), np.inf
    for ridge in RIDGES * max(variance.mean(), 1e-12):
        hat = left * (variance / (variance + ridge))
        fitted = mean + hat @ projected
        # The leverage: how much an example's own outcome counts in its fitted value, through the mean too.
        own = np.minimum((hat * left).sum(1) + 1 / len(outcomes), 1 - 1e-6)
        expected = outcomes - (outcomes - fitted) / (1 - own)[:, None]
        error = float(np.square(outcomes - expected).mean())
        if error < best_error:
            best_error, best, best_ridge = error, expected, ridge
    of_components = right.T @ ((sizes / (variance + best_ridge))[:, None] * projected)
    weights = found.directions @ of_components / found.deviation[:, None]
    return RidgeRegression(
        weights=weights,
        bias=mean - found.mean @ weights,
        left_out=np.asarray(best),
        of_components=of_components,
        mean=mean,
        ridge=float(best_ridge),
    )


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents:
    """The principal components of standardized inputs.

    Attributes:
        mean: Mean of each input, ``[F]``.
        deviation: The number by which each input is divided, ``[F]``.
        directions: Directions of the K components, ``[F, K]``.
        scores: Components of each example, centred, ``[N, K]``.
    """

    mean: Array
    deviation: Array
    directions: Array
    scores: Array

    def of(self, inputs: Array) -> Array:
        """Components of further examples, ``[N, F]`` to ``[N, K]``."""
        return np.asarray(((inputs.reshape(len(inputs), -1) - self.mean) / self.deviation) @ self.directions)


def components(inputs: Array) -> Array:
    """Principal components of standardized inputs, centred, ``[N, K]``."""
    return principal_components(inputs).scores


def principal_components(inputs: Array) -> PrincipalComponents:
    """Principal components of standardized inputs, ``[N, …]``."""
    from sklearn.decomposition import PCA

    flat = inputs.reshape(len(inputs), -1)
    mean, deviation = flat.mean(0), flat.std(0)
    # A unit that is the same for every prompt holds no information: do not blow up its rounding.
    deviation = np.maximum(deviation, 1e-3 * deviation.mean() + 1e-9)
    standardized = (flat - mean) / deviation
    number = min(COMPONENTS, *standardized.shape)
    pca = PCA(number, svd_solver="randomized", random_state=0)
    scores = pca.fit_transform(standardized)
    return PrincipalComponents(
        mean=mean,
        deviation=deviation,
        directions=np.asarray(pca.components_.T),
        scores=np.asarray(scores - scores.mean(0)),
    )

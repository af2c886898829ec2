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
#: A component whose deviation is below this share of the first one's is left out: of few examples, or of ones that are
#: alike, the last components are rounding, and a direction that is arbitrary tells nothing of a further example.
_LEAST_DEVIATION = 1e-3
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
        weights: Weights of the features, ``[K, M]``.
        mean: Mean of each outcome, ``[M]``: its prediction where all features are 0.
        left_out: Prediction of each example from all other examples, ``[N, M]``.
        ridges: The penalty of each outcome, ``[M]``.
    """

    weights: Array
    mean: Array
    left_out: Array
    ridges: Array

    def predict(self, features: Array) -> Array:
        """Predictions for further examples, ``[N, K]`` to ``[N, M]``."""
        return np.asarray(features @ self.weights + self.mean)


class RidgeSolver:
    """Fits outcomes by ridge regression on the same features; what depends on these alone is computed once.

    Args:
        features: Features of each example, centred, ``[N, K]``; N is at least 2.
    """

    def __init__(self, features: Array) -> None:
        variance, directions = np.linalg.eigh(features.T @ features)
        inside = variance > 1e-12 * max(variance[-1], 1e-300)
        self._variance, self._directions = variance[inside], directions[:, inside]
        self._left = (features @ self._directions) / np.sqrt(self._variance)

    def fit(self, outcomes: Array) -> RidgeRegression:
        """Fit outcomes, ``[N, M]``.

        Returns:
            The regression in which each outcome has the penalty whose left-out predictions have the least squared
            error: a program of which the inputs tell much is not to be smoothed as one of which they tell nothing.
        """
        left, variance = self._left, self._variance
        mean = outcomes.mean(0)
        projected = left.T @ (outcomes - mean)
        squares = np.square(left)
        best_error, best_ridges = np.full(len(mean), np.inf), np.full(len(mean), np.inf)
        best = np.broadcast_to(mean, outcomes.shape).copy()
        for ridge in RIDGES * max(variance.mean() if len(variance) else 0.0, 1e-12):
            shrunk = variance / (variance + ridge)
            fitted = mean + left @ (shrunk[:, None] * projected)
            # The leverage: how much an example's own outcome counts in its fitted value, through the mean too.
            own = np.minimum(squares @ shrunk + 1 / len(outcomes), 1 - 1e-6)
            expected = outcomes - (outcomes - fitted) / (1 - own)[:, None]
            error = np.square(outcomes - expected).mean(0)
            better = error <= best_error  # of equal ones the largest: an outcome that never varies tells nothing
            best_error[better], best_ridges[better], best[:, better] = error[better], ridge, expected[:, better]
        return RidgeRegression(
            weights=self._directions @ (np.sqrt(variance)[:, None] / (variance[:, None] + best_ridges) * projected),
            mean=mean,
            left_out=best,
            ridges=best_ridges,
        )


def leave_one_out(inputs: Array, outcomes: Array) -> Array:
    """Predict each example's outcomes from all other examples, by their inputs' principal components."""
    return RidgeSolver(components(inputs)).fit(outcomes).left_out


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
        return np.asarray(
            ((inputs.reshape(len(inputs), len(self.mean)) - self.mean) / self.deviation) @ self.directions
        )


def components(inputs: Array) -> Array:
    """Principal components of standardized inputs, centred, ``[N, K]``."""
    return principal_components(inputs).scores


def principal_components(inputs: Array) -> PrincipalComponents:
    """Principal components of standardized inputs, ``[N, …]``: at most ``COMPONENTS``, and none of rounding alone."""
    from sklearn.decomposition import PCA

    flat = inputs.reshape(len(inputs), -1)
    mean, deviation = flat.mean(0), flat.std(0)
    # A unit that is the same for every prompt holds no information: do not blow up its rounding.
    deviation = np.maximum(deviation, 1e-3 * deviation.mean() + 1e-9)
    standardized = (flat - mean) / deviation
    number = min(COMPONENTS, *standardized.shape)
    pca = PCA(number, svd_solver="randomized", random_state=0)
    scores = pca.fit_transform(standardized)
    spread = scores.std(0)
    told = spread > _LEAST_DEVIATION * spread.max()
    told[0] = True  # where all inputs are alike, one component that says so
    return PrincipalComponents(
        mean=mean,
        deviation=deviation,
        directions=np.asarray(pca.components_.T[:, told]),
        scores=np.asarray((scores - scores.mean(0))[:, told]),
    )

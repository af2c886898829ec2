"""The beliefs of a selector about each program: its chance of being right, and how an outcome of its use changes it.

A chance is the sum of a linear function of an example's components and of a weighted sum of its similarities to
landmarks; both are fitted to a menu's matrix, see ``chances``. After deployment an outcome is known for the program
that ran alone. It corrects the linear function of that program, as a Bayesian linear regression does (Bishop 2006,
section 3.3). The spread of its posterior says where a program is still worth trying (Thompson sampling, 1707.02038). It
begins where the examples of the matrix leave it.

Shapes: N examples, M programs, F inputs, K components of the inputs, J landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from router.heads.selector.landmarks import Landmarks

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Beliefs:
    """Regressions from inputs to each program's chance of being right.

    Attributes:
        projection: From inputs to components, ``[F, K]``.
        offset: Constants of the components, ``[K]``.
        weights: Weights of the components, the constant last, ``[K + 1, M]``.
        landmarks: The landmarks.
        of_landmarks: Weights of the similarities to landmarks, ``[J, M]``.
        precision: Precision of the components' weights in units of the noise, ``[1, K + 1, K + 1]`` where it is the
            same for all programs, else ``[M, K + 1, K + 1]``.
        noise: Variance of an outcome around its chance, ``[M]``.
    """

    projection: Array
    offset: Array
    weights: Array
    landmarks: Landmarks
    of_landmarks: Array
    precision: Array
    noise: Array

    def updated(self, inputs: Array, places: Array, outcomes: Array) -> Beliefs:
        """The beliefs after further outcomes.

        Args:
            inputs: Inputs of the examples, ``[N, F]``.
            places: Place of the program that ran on each, ``[N]``.
            outcomes: Right answers, or scores from 0 to 1, ``[N]``.
        """
        components, chances = self.components(inputs), self.chances(inputs)
        weights = self.weights.copy()
        precision = (
            np.repeat(self.precision, weights.shape[1], 0) if len(self.precision) == 1 else self.precision.copy()
        )
        for place in np.unique(places):
            of_program = places == place
            seen = components[of_program]
            precision[place] += seen.T @ seen
            surprise = seen.T @ (outcomes[of_program] - chances[of_program, place])
            weights[:, place] += np.linalg.solve(precision[place], surprise)
        return replace(self, weights=weights, precision=precision)

    def components(self, inputs: Array) -> Array:
        """The components of inputs, and the constant 1, ``[N, F]`` to ``[N, K + 1]``."""
        return np.column_stack([inputs @ self.projection + self.offset, np.ones(len(inputs))])

    def chances(self, inputs: Array) -> Array:
        """Mean chance of each program, ``[N, M]``."""
        components = self.components(inputs)
        similar = self.landmarks.similarities(components[:, :-1])
        return np.asarray(components @ self.weights + similar @ self.of_landmarks)

    def covariance(self) -> Array:
        """Covariance of the weights in units of the noise, of the shape of the precision."""
        return np.linalg.inv(self.precision)

"""The beliefs of a selector about each program: a Bayesian linear regression, which outcomes of its use go on from.

Ridge regression is the mean of the posterior of a linear regression with a normal prior (Bishop 2006, section 3.3). The
matrix of a menu gives every program the same examples, so one precision holds for all. After deployment an outcome
is known for the program that ran alone: it is a further observation of that program's regression. The spread of the
posterior says where a program is still worth trying (Thompson sampling, 1707.02038).

Shapes: N examples, M programs, F inputs, K components of the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from router.menu.ridge import PrincipalComponents

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Beliefs:
    """Linear regressions from inputs to each program's chance of being right.

    Attributes:
        projection: From inputs to components, ``[F, K]``.
        offset: Constants of the components, ``[K]``.
        weights: Mean weights of the components, the constant last, ``[K + 1, M]``.
        precision: Precision of the weights in units of the noise, ``[1, K + 1, K + 1]`` where it is the same for all
            programs, else ``[M, K + 1, K + 1]``.
        noise: Variance of an outcome around its chance, ``[M]``.
    """

    projection: Array
    offset: Array
    weights: Array
    precision: Array
    noise: Array

    @classmethod
    def of(cls, found: PrincipalComponents, weights: Array, bias: Array, *, ridge: float, noise: Array) -> Beliefs:
        """The beliefs after a ridge regression.

        Args:
            found: The components of the examples' inputs.
            weights: Weights of the components, ``[K, M]``.
            bias: Constant of each chance, ``[M]``.
            ridge: The penalty of the weights.
            noise: Variance of an outcome around its chance, ``[M]``.
        """
        number = found.scores.shape[1]
        precision = np.zeros((1, number + 1, number + 1))
        precision[0, :number, :number] = found.scores.T @ found.scores + ridge * np.eye(number)
        precision[0, number, number] = len(found.scores)
        projection = found.directions / found.deviation[:, None]
        return cls(
            projection=projection,
            offset=-found.mean @ projection,
            weights=np.concatenate([weights, bias[None]]),
            precision=precision,
            noise=noise,
        )

    def updated(self, inputs: Array, places: Array, outcomes: Array) -> Beliefs:
        """The beliefs after further outcomes.

        Args:
            inputs: Inputs of the examples, ``[N, F]``.
            places: Place of the program that ran on each, ``[N]``.
            outcomes: Right answers, or scores from 0 to 1, ``[N]``.
        """
        components = self.components(inputs)
        weights = self.weights.copy()
        precision = (
            np.repeat(self.precision, weights.shape[1], 0) if len(self.precision) == 1 else self.precision.copy()
        )
        for place in np.unique(places):
            of_program = places == place
            seen, found = components[of_program], outcomes[of_program]
            precision[place] += seen.T @ seen
            surprise = seen.T @ (found - seen @ weights[:, place])
            weights[:, place] += np.linalg.solve(precision[place], surprise)
        return replace(self, weights=weights, precision=precision)

    def components(self, inputs: Array) -> Array:
        """The components of inputs, and the constant 1, ``[N, F]`` to ``[N, K + 1]``."""
        return np.column_stack([inputs @ self.projection + self.offset, np.ones(len(inputs))])

    def chances(self, inputs: Array) -> Array:
        """Mean chance of each program, ``[N, M]``."""
        return np.asarray(self.components(inputs) @ self.weights)

    def covariance(self) -> Array:
        """Covariance of the weights in units of the noise, of the shape of the precision."""
        return np.linalg.inv(self.precision)

    def linear(self) -> tuple[Array, Array]:
        """The mean chances as a linear map of the inputs: weights ``[F, M]`` and bias ``[M]``."""
        return self.projection @ self.weights[:-1], self.weights[-1] + self.offset @ self.weights[:-1]

"""Landmarks: training examples to which others are compared.

A linear regression says the same of all examples along a direction. Whether a program helps is more local than that:
examples whose states are alike share it. A Gaussian kernel measures how alike two examples are. A regression on the
similarities to all training examples is kernel ridge regression; some of them, the *landmarks*, are enough, and bound
its cost (the Nyström method, Williams and Seeger 2001).

Shapes: N examples, J landmarks, K components of the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Squared distances are measured in quarters of their median.
_NARROWNESS = 4.0
#: Added to the similarity of a landmark to itself, so that two equal ones can be told from rounding.
_JITTER = 1e-6


@dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Some training examples, and the measure of how alike another one is.

    Attributes:
        scale: Factor of each component, ``[K]``.
        points: The scaled components of each landmark, ``[J, K]``.
    """

    scale: Array
    points: Array

    @classmethod
    def among(cls, scores: Array, number: int) -> Landmarks:
        """Landmarks drawn from training examples.

        Args:
            scores: Principal components of each example, ``[N, K]``.
            number: Most landmarks.
        """
        drawn = scores[np.random.default_rng(0).permutation(len(scores))[:number]]
        # The first components tell kinds of examples apart, the later ones the examples of a kind. Undivided, the first
        # ones alone would decide who is near; divided by their deviations, all would count alike, noise too. Divided by
        # the roots of their deviations, the later ones count, and count less.
        scale = 1 / np.sqrt(np.maximum(scores.std(0), 1e-9))
        half = len(drawn) // 2
        apart = float(np.median(_squared_distances(drawn[:half] * scale, drawn[half:] * scale)))
        scale = scale * np.sqrt(_NARROWNESS / max(apart, 1e-9))
        return cls(scale=scale, points=drawn * scale)

    def similarities(self, components: Array) -> Array:
        """How alike examples are to each landmark, from 0 to 1, ``[N, K]`` to ``[N, J]``."""
        return np.asarray(np.exp(-_squared_distances(components * self.scale, self.points)))

    @cached_property
    def whitening(self) -> Array:
        """From similarities to features whose products are the similarities of landmarks, ``[J, J]``."""
        among = np.exp(-_squared_distances(self.points, self.points)) + _JITTER * np.eye(len(self.points))
        return np.linalg.inv(np.linalg.cholesky(among)).T


def _squared_distances(some: Array, others: Array) -> Array:
    from sklearn.metrics.pairwise import euclidean_distances

    return np.asarray(euclidean_distances(some, others, squared=True))

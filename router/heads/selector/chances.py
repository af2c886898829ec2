"""The fit of each program's chance of being right: ridge regression on components and similarities to landmarks.

Chances are fitted as the base model's chance and each program's *gain* over it: gains vary less by luck than outcomes
do, since how hard an example is drops out.

Shapes: N examples, M programs, F inputs, K components, J landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from router.heads.selector.beliefs import Beliefs
from router.heads.selector.landmarks import Landmarks
from router.menu.ridge import PrincipalComponents, RidgeSolver

Array = np.ndarray[Any, Any]

#: Variance of the features that similarities make, as a share of the components' variance. It is below 1, so that the
#: regression explains an outcome by a linear function where one does.
_LOCAL_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class FittedChances:
    """Chances that were fitted to the outcomes of a menu.

    Attributes:
        beliefs: From inputs to chances.
        left_out: Predicted chances of each example, from all other examples, ``[N, M]``.
    """

    beliefs: Beliefs
    left_out: Array


def fit_chances(found: PrincipalComponents, right: Array, *, num_landmarks: int) -> FittedChances:
    """Fit chances to outcomes.

    Args:
        found: The components of each example's inputs.
        right: Right answers, ``[N, M]``; the first program is the identity program.
        num_landmarks: Most training examples to which others are compared.
    """
    scores = found.scores
    landmarks = Landmarks.among(scores, num_landmarks)
    to_features = np.sqrt(_LOCAL_SHARE * np.square(scores).sum(1).mean()) * landmarks.whitening
    local = landmarks.similarities(scores) @ to_features
    centre = local.mean(0)
    solver = RidgeSolver(np.concatenate([scores, local - centre], axis=1))
    base = solver.fit(right[:, :1])
    gain = solver.fit(right[:, 1:] - right[:, :1]) if right.shape[1] > 1 else None
    mean, weights, left_out = base.mean, base.weights, base.left_out
    if gain is not None:
        mean = np.concatenate([mean, mean + gain.mean])
        weights = np.concatenate([weights, weights + gain.weights], axis=1)
        left_out = np.concatenate([left_out, left_out + gain.left_out], axis=1)
    number = scores.shape[1]
    linear, of_features = weights[:number], weights[number:]
    projection = found.directions / found.deviation[:, None]
    beliefs = Beliefs(
        projection=projection,
        offset=-found.mean @ projection,
        weights=np.concatenate([linear, (mean - centre @ of_features)[None]]),
        landmarks=landmarks,
        of_landmarks=to_features @ of_features,
        precision=_precision(scores, ridges=base.ridges if gain is None else gain.ridges),
        noise=np.square(right - left_out).mean(0),
    )
    return FittedChances(beliefs=beliefs, left_out=left_out)


def _precision(scores: Array, *, ridges: Array) -> Array:
    """The precision of the components' weights after these examples, the constant's last, ``[1, K + 1, K + 1]``.

    All programs share it, with the geometric mean of their penalties: one for each would make a router's file large.
    """
    ridge = np.exp(np.log(ridges).mean())
    number = scores.shape[1]
    precision = np.zeros((1, number + 1, number + 1))
    precision[0, :number, :number] = scores.T @ scores + ridge * np.eye(number)
    precision[0, number, number] = len(scores)
    return precision

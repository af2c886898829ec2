"""The prior of a search: which layers the other examples could do without, and how far examples differ.

The value of a program on an example is modelled as a sum over its skipped layers, its repeated layers and its
neighbouring pairs of skips, whose weights differ from example to example around a common mean. The mean and the
covariance of the weights are the prior, fitted on the calibration set (a linear model with random effects, by
expectation maximization: Laird and Ware, Biometrics 38, 1982). On a new example each result narrows the weights down;
see ``pipeline.search.candidate_set``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.errors import UserError
from pipeline.program import LayerProgram

Floats = npt.NDArray[np.float64]

_FORMAT = "drllm-pipeline prior 1"
_ROUNDS = 30
#: More repeats of a layer than this count as this many.
_MOST_REPEATS = 2
#: Margins are squashed beyond this quantile of their sizes: among answers that are far off, the distance says little.
_QUANTILE = 0.9
#: Standard deviation of the mean weights of edits, before any example.
_MEAN_SCALE = 0.3
#: Standard deviation of an edit's weight over examples, and how many examples that assumption counts for.
_SPREAD, _SPREAD_EXAMPLES = 0.05, 10.0
_BASE_SPREAD = 0.5
#: The noise is at least this, however well the sums fit.
_LEAST_NOISE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The result of one program on one example.

    Attributes:
        example_id: Id of the example.
        program: The program.
        correct: Whether its answer is right.
        margin: Distance of the logits from the opposite result.
    """

    example_id: str
    program: LayerProgram
    correct: bool
    margin: float


@dataclass(frozen=True, kw_only=True)
class Prior:
    """The distribution of an example's weights before its first result.

    Attributes:
        num_layers: Depth L of the model.
        mean: Mean weights ``[3 L]``, in the order of ``features``.
        covariance: Covariance of the weights over examples ``[3 L, 3 L]``.
        noise: Variance of what the weighted sum does not explain.
        margin_scale: Margins are compared on this scale; None where only right and wrong are distinguished.
        num_examples: Number of examples that the prior was fitted on.

    Raises:
        ValueError: The shapes do not match, or a number is out of its range.
    """

    num_layers: int
    mean: Floats
    covariance: Floats
    noise: float
    margin_scale: float | None
    num_examples: int

    def __post_init__(self) -> None:
        size = 3 * self.num_layers
        if self.num_layers < 1 or self.mean.shape != (size,) or self.covariance.shape != (size, size):
            raise ValueError(
                f"a prior for {self.num_layers} layers needs a mean of {size} weights and their covariance"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("the weights of a prior are finite numbers")
        if not 0 < self.noise < np.inf or not (self.margin_scale is None or 0 < self.margin_scale < np.inf):
            raise ValueError("the noise and the margin scale of a prior are above 0")

    def value(self, correct: bool, margin: float) -> float:
        """A result as one number from -1 to 1, positive where it is right."""
        return _value(correct, margin, self.margin_scale)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the prior's file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The prior as a safetensors file."""
        facts = {
            "num_layers": self.num_layers,
            "noise": self.noise,
            "margin_scale": self.margin_scale,
            "num_questions": self.num_examples,  # the key of earlier releases
        }
        # One entry: the order of several is not kept by the format.
        arrays = {"mean": self.mean, "covariance": self.covariance}
        return save(arrays, metadata={"prior": json.dumps({"format": _FORMAT, **facts})})

    @classmethod
    def read(cls, file: str | Path) -> Prior:
        """Read a safetensors file that ``to_bytes`` made.

        Raises:
            UserError: There is no such file, or it holds no prior.
        """
        try:
            with safe_open(file, framework="numpy") as stored:
                facts = json.loads((stored.metadata() or {}).get("prior", "{}"))
                if facts.pop("format", None) != _FORMAT:
                    raise ValueError("it has no prior's header")
                facts["num_examples"] = facts.pop("num_questions")
                arrays = {name: stored.get_tensor(name).astype(np.float64) for name in ("mean", "covariance")}
            return cls(**arrays, **facts)
        except FileNotFoundError:
            raise UserError(f"there is no prior {file}") from None
        except (OSError, SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(f"{file} holds no prior: {error}") from None


def features(programs: Sequence[LayerProgram]) -> Floats:
    """The features of a program, whose weighted sum is its predicted value.

    Args:
        programs: Programs for one model.

    Returns:
        ``[programs, 3 L]``: a constant 1; for each layer whether it is skipped (L) and how often it is repeated (L);
        whether it and the layer after it are both skipped (L - 1). The order of the layers is no feature.
    """
    num_layers = programs[0].num_layers
    counts = np.array([np.bincount(program.layers, minlength=num_layers) for program in programs])
    skipped = (counts == 0).astype(np.float64)
    repeats = np.clip(counts - 1, 0, _MOST_REPEATS)
    return np.hstack([np.ones((len(programs), 1)), skipped, repeats, skipped[:, :-1] * skipped[:, 1:]])


def fit_prior(evaluations: Sequence[Evaluation], *, compare_margins: bool) -> Prior | None:
    """Fit a prior on the searches of other examples.

    Args:
        evaluations: The evaluations, in an order that does not depend on which actor finished first.
        compare_margins: Whether a wrong answer's margin says how near it is to the right one.

    Returns:
        The prior; None without evaluations.
    """
    if not evaluations:
        return None
    margin_scale = _margin_scale(evaluations) if compare_margins else None
    by_example: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_example.setdefault(evaluation.example_id, []).append(evaluation)
    inputs = [features([evaluation.program for evaluation in group]) for group in by_example.values()]
    values = [
        np.array([_value(evaluation.correct, evaluation.margin, margin_scale) for evaluation in group])
        for group in by_example.values()
    ]
    mean, covariance, noise = _random_effects(inputs, values)
    return Prior(
        num_layers=evaluations[0].program.num_layers,
        mean=mean,
        covariance=covariance,
        noise=noise,
        margin_scale=margin_scale,
        num_examples=len(by_example),
    )


def _margin_scale(evaluations: Sequence[Evaluation]) -> float | None:
    sizes = [abs(evaluation.margin) for evaluation in evaluations if np.isfinite(evaluation.margin)]
    scale = float(np.quantile(sizes, _QUANTILE)) if sizes else 0.0
    return scale or None


def _value(correct: bool, margin: float, scale: float | None) -> float:
    if scale is None:
        return 1.0 if correct else -1.0
    return float(np.tanh(margin / scale))


def _random_effects(inputs: Sequence[Floats], values: Sequence[Floats]) -> tuple[Floats, Floats, float]:
    """Mean and covariance of the examples' weights, and the noise, by expectation maximization.

    Args:
        inputs: For each example its programs' features ``[n, D]``.
        values: For each example its programs' values ``[n]``.

    Mean and covariance are shrunk towards small and independent weights, by as much as ``_SPREAD_EXAMPLES`` examples.
    """
    size, num_examples = inputs[0].shape[1], len(inputs)
    mean = np.zeros(size)
    target = np.diag([_BASE_SPREAD**2] + [_SPREAD**2] * (size - 1))
    covariance = np.diag([1.0] + [_MEAN_SCALE**2] * (size - 1))
    # The constant is no edit: its weight, the value of the identity program, may be anything.
    small = np.diag([1e-4] + [_MEAN_SCALE**-2] * (size - 1))
    noise = 0.1
    for _ in range(_ROUNDS):
        precision = np.linalg.inv(covariance)
        means, variances, squared_errors = [], np.zeros((size, size)), 0.0
        for rows, value in zip(inputs, values):
            variance = np.linalg.inv(precision + rows.T @ rows / noise)
            weights = variance @ (precision @ mean + rows.T @ value / noise)
            means.append(weights)
            variances += variance
            squared_errors += float(((value - rows @ weights) ** 2).sum() + ((rows @ variance) * rows).sum())
        mean = np.linalg.solve(num_examples * precision + small, precision @ np.sum(means, axis=0))
        deviations = np.array(means) - mean
        scatter = variances + deviations.T @ deviations
        covariance = (scatter + _SPREAD_EXAMPLES * target) / (num_examples + _SPREAD_EXAMPLES)
        noise = max(squared_errors / sum(map(len, values)), _LEAST_NOISE)
    return mean, covariance, noise

"""What was learnt on other questions: which layers a model can do without, and how far questions differ.

What a program is worth on a question is taken to be a sum over its skipped layers, its repeated ones and
its neighbouring pairs of skips, whose weights differ from question to question around a common mean. The
mean and the covariance of the weights are the prior, fitted on calibration questions (a linear model with
random effects, by expectation maximization: Laird and Ware, Biometrics 38, 1982). On a new question each
verdict narrows them down; see ``pipeline.search.guided_selection``.
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
#: A layer that runs more often than this is taken to run this often.
_MOST_REPEATS = 2
#: Margins are squashed beyond this quantile of their sizes: how far a hopeless answer is off says little.
_QUANTILE = 0.9
#: Weights of edits are about this small, before anything is known.
_MEAN_SCALE = 0.3
#: How far weights of one edit lie apart, before anything is known, and of how many questions that is worth.
_SPREAD, _SPREAD_QUESTIONS = 0.05, 10.0
_BASE_SPREAD = 0.5
#: Nothing that was seen is a reason to take a sum for certain.
_LEAST_NOISE = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The verdict on one program and one question.

    Attributes:
        example_id: The question.
        program: The program.
        correct: Whether its answer is right.
        margin: How far the answer is from turning.
    """

    example_id: str
    program: LayerProgram
    correct: bool
    margin: float


@dataclass(frozen=True, kw_only=True)
class Prior:
    """What is known of a question's weights before it is asked.

    Attributes:
        num_layers: Depth L of the model.
        mean: Mean weights ``[3 L]``, in the order of ``features``.
        covariance: Their covariance from question to question ``[3 L, 3 L]``.
        noise: Variance of what the sum leaves unsaid.
        margin_scale: Margins are compared on this scale; None where only right and wrong are.
        num_questions: Questions that it was fitted on.

    Raises:
        ValueError: The shapes do not match, or a number is out of its range.
    """

    num_layers: int
    mean: Floats
    covariance: Floats
    noise: float
    margin_scale: float | None
    num_questions: int

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

    def worth(self, correct: bool, margin: float) -> float:
        """What a verdict is worth, from -1 to 1; positive where it is right."""
        return _worth(correct, margin, self.margin_scale)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        facts = {
            "num_layers": self.num_layers,
            "noise": self.noise,
            "margin_scale": self.margin_scale,
            "num_questions": self.num_questions,
        }
        # One entry: the order of several is not kept by the format.
        arrays = {"mean": self.mean, "covariance": self.covariance}
        return save(arrays, metadata={"prior": json.dumps({"format": _FORMAT, **facts})})

    @classmethod
    def read(cls, file: str | Path) -> Prior:
        """From a safetensors file that ``to_bytes`` made.

        Raises:
            UserError: There is no such file, or it holds no prior.
        """
        try:
            with safe_open(file, framework="numpy") as stored:
                facts = json.loads((stored.metadata() or {}).get("prior", "{}"))
                if facts.pop("format", None) != _FORMAT:
                    raise ValueError("it has no prior's header")
                arrays = {name: stored.get_tensor(name).astype(np.float64) for name in ("mean", "covariance")}
            return cls(**arrays, **facts)
        except FileNotFoundError:
            raise UserError(f"there is no prior {file}") from None
        except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{file} holds no prior: {error}") from None


def features(programs: Sequence[LayerProgram]) -> Floats:
    """What the sums run over.

    Args:
        programs: Programs for one model.

    Returns:
        ``[programs, 3 L]``: a one; whether each layer is skipped (L); how often it is repeated (L);
        whether it and the one after it are both skipped (L - 1).
    """
    num_layers = programs[0].num_layers
    counts = np.array([np.bincount(program.layers, minlength=num_layers) for program in programs])
    skipped = (counts == 0).astype(np.float64)
    repeats = np.clip(counts - 1, 0, _MOST_REPEATS)
    return np.hstack([np.ones((len(programs), 1)), skipped, repeats, skipped[:, :-1] * skipped[:, 1:]])


def fit_prior(evaluations: Sequence[Evaluation], *, compare_margins: bool) -> Prior | None:
    """Learn a prior from searches of other questions.

    Args:
        evaluations: Their verdicts, in an order that does not depend on who came to them when.
        compare_margins: Whether a wrong answer's margin says how near it is to the right one.

    Returns:
        The prior; None without evaluations.
    """
    if not evaluations:
        return None
    margin_scale = _margin_scale(evaluations) if compare_margins else None
    by_question: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_question.setdefault(evaluation.example_id, []).append(evaluation)
    inputs = [features([evaluation.program for evaluation in group]) for group in by_question.values()]
    worths = [
        np.array([_worth(evaluation.correct, evaluation.margin, margin_scale) for evaluation in group])
        for group in by_question.values()
    ]
    mean, covariance, noise = _random_effects(inputs, worths)
    return Prior(
        num_layers=evaluations[0].program.num_layers,
        mean=mean,
        covariance=covariance,
        noise=noise,
        margin_scale=margin_scale,
        num_questions=len(by_question),
    )


def _margin_scale(evaluations: Sequence[Evaluation]) -> float | None:
    sizes = [abs(evaluation.margin) for evaluation in evaluations if np.isfinite(evaluation.margin)]
    scale = float(np.quantile(sizes, _QUANTILE)) if sizes else 0.0
    return scale or None


def _worth(correct: bool, margin: float, scale: float | None) -> float:
    if scale is None:
        return 1.0 if correct else -1.0
    return float(np.tanh(margin / scale))


def _random_effects(inputs: Sequence[Floats], worths: Sequence[Floats]) -> tuple[Floats, Floats, float]:
    """Mean and covariance of the questions' weights, and the noise, by expectation maximization.

    Args:
        inputs: For each question its programs' features ``[n, D]``.
        worths: For each question its programs' worths ``[n]``.

    Both are drawn towards small and independent weights, by as much as ``_SPREAD_QUESTIONS`` questions.
    """
    size, questions = inputs[0].shape[1], len(inputs)
    mean = np.zeros(size)
    towards = np.diag([_BASE_SPREAD**2] + [_SPREAD**2] * (size - 1))
    covariance = np.diag([1.0] + [_MEAN_SCALE**2] * (size - 1))
    # The one is no edit: its weight, what the untouched model is worth, may be anything.
    small = np.diag([1e-4] + [_MEAN_SCALE**-2] * (size - 1))
    noise = 0.1
    for _ in range(_ROUNDS):
        precision = np.linalg.inv(covariance)
        means, doubts, misses = [], np.zeros((size, size)), 0.0
        for rows, worth in zip(inputs, worths):
            doubt = np.linalg.inv(precision + rows.T @ rows / noise)
            weights = doubt @ (precision @ mean + rows.T @ worth / noise)
            means.append(weights)
            doubts += doubt
            misses += float(((worth - rows @ weights) ** 2).sum() + ((rows @ doubt) * rows).sum())
        mean = np.linalg.solve(questions * precision + small, precision @ np.sum(means, axis=0))
        apart = np.array(means) - mean
        covariance = (doubts + apart.T @ apart + _SPREAD_QUESTIONS * towards) / (questions + _SPREAD_QUESTIONS)
        noise = max(misses / sum(map(len, worths)), _LEAST_NOISE)
    return mean, covariance, noise

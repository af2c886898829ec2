"""Metrics of a classifier: accuracy, macro-F1, average precision and calibration, with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score

_BINS = 15

Array = np.ndarray[Any, Any]


def macro_f1(labels: Array, chosen: Array) -> float:
    """The mean F1 of all labels that are true or chosen for some text."""
    return float(f1_score(labels, chosen, average="macro", zero_division=0.0))


def metrics_of(labels: Array, chosen: Array, scores: Array, names: Sequence[str]) -> dict[str, Any]:
    """All metrics of a classifier on some texts.

    Args:
        labels: Indices of the true labels, ``[N]``.
        chosen: Indices of the chosen labels, ``[N]``.
        scores: Probabilities of the labels, ``[N, classes]``.
        names: Names of the labels.

    Returns:
        ``accuracy``; ``macro_f1``; ``auprc``, the average precision (of the second of two labels, else the mean over
        the labels that some text has); ``calibration_error``, see ``calibration_error``; ``f1``, by label;
        ``confusion``, true labels by chosen labels.
    """
    every = range(len(names))
    positives = [1] if len(names) == 2 else every
    precisions = [average_precision_score(labels == one, scores[:, one]) for one in positives if (labels == one).any()]
    by_label = f1_score(labels, chosen, labels=every, average=None, zero_division=0.0)
    return {
        "accuracy": float(accuracy_score(labels, chosen)),
        "macro_f1": macro_f1(labels, chosen),
        "auprc": float(np.mean(precisions)) if precisions else None,
        "calibration_error": calibration_error(labels == scores.argmax(1), scores.max(1)),
        "f1": {name: float(score) for name, score in zip(names, by_label)},
        "confusion": confusion_matrix(labels, chosen, labels=every).tolist(),
    }


def calibration_error(right: Array, confidence: Array) -> float:
    """Expected calibration error: the mean distance of accuracy and confidence (Guo et al., ICML 2017).

    The 15 bins are of equal width, and weighted by their number of texts.
    """
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    error = 0.0
    for one in np.unique(bins):
        inside = bins == one
        error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return float(error)


def best_threshold(labels: Array, positive: Array) -> float:
    """The threshold with the highest macro-F1: the second of two labels is chosen from this probability on.

    Args:
        labels: Indices of the true labels, 0 or 1, ``[N]``.
        positive: Probabilities of the second label, ``[N]``.

    Returns:
        One half, or the midpoint of two neighbouring probabilities in ``positive``; of equally good thresholds, the one
        nearest to one half.
    """
    values = np.unique(positive)
    between = np.unique(np.concatenate([[0.5], (values[1:] + values[:-1]) / 2]))
    # For each label the number of its texts below each threshold: this gives the true and false positives.
    below = [np.searchsorted(np.sort(positive[labels == one]), between, side="left") for one in (0, 1)]
    zeros, ones = (labels == 0).sum(), (labels == 1).sum()
    chosen_one = (zeros - below[0]) + (ones - below[1])
    f1_one = 2 * (ones - below[1]) / np.maximum(ones + chosen_one, 1)
    f1_zero = 2 * below[0] / np.maximum(zeros + len(labels) - chosen_one, 1)
    scores = (f1_one + f1_zero) / 2
    best = between[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])

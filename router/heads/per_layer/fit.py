"""Fitting routers to labelled features: focal loss, early stopping on macro-F1.

The fit is independent of the source of the features. On a CPU the same seed gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score

from router.fitting import EpochRecord, fit_with_early_stopping
from router.heads.per_layer.losses import effective_number_weights, focal_loss
from router.heads.per_layer.per_layer_request import FitConfig
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.labels.labelled import NUM_CLASSES

CLASSES = ("skip", "execute", "repeat")
#: Rows of a batch outside of training.
_EVALUATED_ROWS = 256
#: Most held-out rows whose log-probabilities a router keeps: budgets are planned on them.
KEPT_HELD_OUT = 512


class Rows(Protocol):
    """Labelled rows with their features, from any source."""

    def __len__(self) -> int: ...

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """Labels ``[N, L]``: the count of each layer, 0 to 2."""
        ...

    @property
    def shares(self) -> np.ndarray[Any, Any]:
        """What is expected of each count of each layer, ``[N, L, 3]``; 1 and 0 where the label is certain."""
        ...

    def features(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Features of some rows, ``[B, L, W, D]``."""
        ...


@dataclass(frozen=True, kw_only=True)
class FittedRouters:
    """Fitted routers, and the course of the fitting.

    Attributes:
        routers: The best routers by macro-F1 on the held-out rows.
        held_out: Log-probabilities on held-out rows, ``[N, L, 3]``, N at most ``KEPT_HELD_OUT``.
        history: A record for each epoch; see ``fit``.
        best: The record of the epoch that was kept.
        confusion: Held-out labels by decisions, ``[3, 3]``, of the best routers.
    """

    routers: LayerRouters
    held_out: torch.Tensor
    history: list[dict[str, float]]
    best: dict[str, float]
    confusion: np.ndarray[Any, Any]


def fit(
    train: Rows,
    held_out: Rows,
    shape: RouterConfig,
    config: FitConfig,
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FittedRouters:
    """Fit routers.

    Inputs are standardized by the training rows' mean and deviation for each layer and unit; the first linear layer
    takes that in at the end, so that the routers read plain hidden states. A layer that has the same label in every
    training row gets a constant router.

    Args:
        train: Rows to learn from.
        held_out: Rows to stop by.
        shape: The routers' sizes.
        config: Settings of the fitting.
        device: Device of the fitting.
        on_epoch: Receives every epoch's record: ``epoch``, ``train_loss``, ``loss``, ``macro_f1``, ``accuracy`` (of
            single decisions), ``f1_skip``, ``f1_execute``, ``f1_repeat``, ``layers`` (the mean length of
            the programs that the likeliest decisions make), ``learning_rate``, ``seconds``. ``loss`` and the scores
            are of the held-out rows.

    Raises:
        ValueError: There are no rows, all labels are of one class, or the loss is not finite.
    """
    if not len(train) or not len(held_out):
        raise ValueError(f"there must be rows to train on and rows held out, got {len(train)} and {len(held_out)}")
    totals = np.bincount(train.counts.ravel(), minlength=NUM_CLASSES)
    if (totals > 0).sum() < 2:
        raise ValueError(f"every label is '{CLASSES[int(totals.argmax())]}': there is nothing to learn")
    expected = torch.from_numpy(train.shares).sum((0, 1))
    class_weights = effective_number_weights(expected, beta=config.beta).to(device)
    standardize = Standardization.of(train, device)
    routers = LayerRouters(shape, seed=config.seed)
    # A layer with the same label in every row has nothing to learn, and a prompt need not wait for its router.
    constant = torch.from_numpy((train.counts == train.counts[:1]).all(0))
    routers.make_constant(constant, _frequencies(train.counts).log())
    routers.to(device)
    rng = np.random.default_rng(config.seed)
    targets = torch.from_numpy(held_out.shares).float().to(device)

    def loss(indices: np.ndarray[Any, Any]) -> tuple[torch.Tensor, int]:
        shares = torch.from_numpy(train.shares[indices]).float().to(device)
        logits = routers(standardize(train.features(indices)))
        return focal_loss(logits, shares, class_weights, gamma=config.gamma), len(indices)

    def evaluate() -> EpochRecord:
        logits = _logits(routers, held_out, standardize)
        return {
            "loss": float(focal_loss(logits, targets, class_weights, gamma=config.gamma)),
            **_scores(held_out.counts, logits.argmax(-1).cpu().numpy()),
        }

    course = fit_with_early_stopping(
        routers,
        config,
        num_rows=len(train),
        batches=lambda: _slices(rng.permutation(len(train)), config.batch_size),
        loss=loss,
        evaluate=evaluate,
        on_epoch=on_epoch,
    )
    logits = _logits(routers, held_out, standardize)
    confusion = confusion_matrix(
        held_out.counts.ravel(), logits.argmax(-1).cpu().numpy().ravel(), labels=range(NUM_CLASSES)
    )
    standardize.absorb_into(routers)
    return FittedRouters(
        routers=routers.cpu().eval().requires_grad_(False),
        held_out=logits[:KEPT_HELD_OUT].log_softmax(-1).cpu(),
        history=course.history,
        best=course.best,
        confusion=confusion,
    )


def _slices(indices: np.ndarray[Any, Any], size: int) -> Iterator[np.ndarray[Any, Any]]:
    """Indices in their order, in slices."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


@torch.inference_mode()
def _logits(routers: LayerRouters, rows: Rows, standardize: Standardization) -> torch.Tensor:
    """The routers' logits on all rows, ``[N, L, 3]``."""
    return torch.cat(
        [routers(standardize(rows.features(indices))) for indices in _slices(np.arange(len(rows)), _EVALUATED_ROWS)]
    )


def _frequencies(labels: np.ndarray[Any, Any]) -> torch.Tensor:
    """Frequency of each class by layer, ``[L, 3]``, smoothed so that no class has frequency 0."""
    counted = np.stack([np.bincount(of_layer, minlength=NUM_CLASSES) for of_layer in labels.T]) + 0.5
    return torch.from_numpy(counted / counted.sum(1, keepdims=True))


@dataclass(frozen=True)
class Standardization:
    """Mean and deviation of each layer's input, over training rows and windows.

    Attributes:
        mean: ``[L, 1, D]``.
        deviation: ``[L, 1, D]``.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    @classmethod
    def of(cls, rows: Rows, device: torch.device | str) -> Standardization:
        """The mean and the standard deviation of some rows."""
        number = 0
        total = squares = torch.zeros(1, dtype=torch.float64)
        for indices in _slices(np.arange(len(rows)), _EVALUATED_ROWS):
            features = torch.from_numpy(rows.features(indices)).double()
            number += features.shape[0] * features.shape[2]
            total = total + features.sum((0, 2))
            squares = squares + features.square().sum((0, 2))
        mean = total / number
        deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
        # A unit that is the same for every prompt holds no information: do not blow up its rounding.
        floor = 1e-3 * deviation.mean(-1, keepdim=True) + 1e-6
        return cls(mean[:, None].float().to(device), torch.maximum(deviation, floor)[:, None].float().to(device))

    def __call__(self, features: np.ndarray[Any, Any]) -> torch.Tensor:
        """Features ``[B, L, W, D]`` with mean 0 and deviation 1, in float32."""
        return (torch.from_numpy(features).to(self.mean.device).float() - self.mean) / self.deviation

    @torch.no_grad()
    def absorb_into(self, routers: LayerRouters) -> None:
        """Let the routers' first linear layer standardize: W(x − m)/s + b = (W/s)x + (b − (W/s)m)."""
        routers.weight_in.div_(self.deviation.transpose(1, 2))
        routers.bias_in.sub_(torch.bmm(self.mean, routers.weight_in)[:, 0])


def _scores(labels: np.ndarray[Any, Any], decided: np.ndarray[Any, Any]) -> dict[str, float]:
    """Agreement of decisions ``[N, L]`` with labels; the macro-F1 is over the classes that the labels have."""
    by_class = f1_score(labels.ravel(), decided.ravel(), labels=range(NUM_CLASSES), average=None, zero_division=0.0)
    present = np.unique(labels)
    return {
        "macro_f1": float(by_class[present].mean()),
        "accuracy": float((labels == decided).mean()),
        **{f"f1_{name}": float(score) for name, score in zip(CLASSES, by_class)},
        "layers": float(decided.sum(1).mean()),
    }

"""Fitting routers to labelled features: focal loss, AdamW, cosine with warm-up, early stopping on macro-F1.

Nothing here knows where features come from. On a CPU the same seed gives the same bits.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score

from router.fitting import cosine_with_warmup
from router.heads.per_layer.losses import effective_number_weights, focal_loss
from router.heads.per_layer.per_layer_request import FitConfig
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.labels.labelled import NUM_CLASSES

CLASSES = ("skip", "execute", "repeat")
#: Rows that are read at once where nothing is learnt from them.
_EVALUATED = 256
#: Most held-out rows whose log-probabilities a router keeps: budgets are planned on them.
KEPT_HELD_OUT = 512


class Rows(Protocol):
    """Labelled rows, wherever their features lie."""

    def __len__(self) -> int: ...

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """Labels ``[N, L]``."""
        ...

    def features(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Features of some rows, ``[B, L, W, D]``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What came of fitting.

    Attributes:
        routers: The best routers by macro-F1 on the held-out rows.
        held_out: Their log-probabilities there, ``[N, L, 3]``, N at most ``KEPT_HELD_OUT``.
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
    size: RouterConfig,
    config: FitConfig,
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
) -> Fitted:
    """Fit routers.

    Inputs are standardized by the training rows' mean and deviation for each layer and unit; the first linear layer
    takes that in at the end, so that the routers read plain hidden states. The router of a layer that has the same
    label in every training row says so whatever it reads.

    Args:
        train: Rows to learn from.
        held_out: Rows to stop by.
        size: The routers' size.
        config: How to fit.
        device: Where.
        on_epoch: Told of every epoch's record: ``epoch``, ``train_loss``, ``loss``, ``macro_f1``, ``accuracy`` (of
            single decisions), ``f1_skip``, ``f1_execute``, ``f1_repeat``, ``layers`` (the mean length of
            the programs that the likeliest decisions make), ``learning_rate``, ``seconds``; all but
            ``train_loss`` of the held-out rows.

    Raises:
        ValueError: There are no rows, or all labels are of one class.
    """
    if not len(train) or not len(held_out):
        raise ValueError(f"there must be rows to train on and rows held out, got {len(train)} and {len(held_out)}")
    totals = np.bincount(train.counts.ravel(), minlength=NUM_CLASSES)
    if (totals > 0).sum() < 2:
        raise ValueError(f"every label is '{CLASSES[int(totals.argmax())]}': there is nothing to tell apart")
    weights = effective_number_weights(torch.from_numpy(totals), beta=config.beta).to(device)
    mean, deviation = (moment.to(device) for moment in _moments(train))
    routers = LayerRouters(size, seed=config.seed)
    # A layer whose labels are all alike has nothing to learn, and a prompt need not wait for its router.
    alike = torch.from_numpy((train.counts == train.counts[:1]).all(0))
    routers.settle(alike, _frequencies(train.counts).log())
    routers.to(device)
    optimizer = torch.optim.AdamW(routers.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    num_steps = config.epochs * math.ceil(len(train) / config.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, cosine_with_warmup(num_steps, min(config.warmup_steps, num_steps // 10))
    )
    order = np.random.default_rng(config.seed)

    def batches(rows: Rows, indices: np.ndarray[Any, Any], size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            features = torch.from_numpy(rows.features(chosen)).to(device).float()
            targets = torch.from_numpy(rows.counts[chosen]).to(device)
            yield (features - mean) / deviation, targets

    def told(rows: Rows) -> torch.Tensor:
        with torch.inference_mode():
            return torch.cat([routers(features) for features, _ in batches(rows, np.arange(len(rows)), _EVALUATED)])

    targets = torch.from_numpy(held_out.counts).to(device)
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    best_weights: dict[str, torch.Tensor] = {}
    for epoch in range(1, config.epochs + 1):
        began, lost = time.monotonic(), 0.0
        for features, labels in batches(train, order.permutation(len(train)), config.batch_size):
            loss = focal_loss(routers(features), labels, weights, gamma=config.gamma)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            lost += float(loss.detach()) * len(labels)
        if not math.isfinite(lost):
            raise ValueError(f"the loss is no number any more in epoch {epoch}; a smaller learning rate may help")
        logits = told(held_out)
        record: dict[str, float] = {
            "epoch": float(epoch),
            "train_loss": lost / len(train),
            "loss": float(focal_loss(logits, targets, weights, gamma=config.gamma)),
            **_scores(held_out.counts, logits.argmax(-1).cpu().numpy()),
            "learning_rate": float(scheduler.get_last_lr()[0]),
            "seconds": time.monotonic() - began,
        }
        history.append(record)
        on_epoch(record)
        if not best or record["macro_f1"] > best["macro_f1"]:
            best, best_weights = record, copy.deepcopy(routers.state_dict())
        elif epoch - best["epoch"] >= config.patience:
            break
    routers.load_state_dict(best_weights)
    logits = told(held_out)
    confusion = confusion_matrix(
        held_out.counts.ravel(), logits.argmax(-1).cpu().numpy().ravel(), labels=range(NUM_CLASSES)
    )
    _absorb(routers, mean, deviation)
    return Fitted(
        routers=routers.cpu().eval().requires_grad_(False),
        held_out=logits[:KEPT_HELD_OUT].log_softmax(-1).cpu(),
        history=history,
        best=best,
        confusion=confusion,
    )


def _frequencies(labels: np.ndarray[Any, Any]) -> torch.Tensor:
    """How often each layer has each class, ``[L, 3]``; a little of everything, so that nothing is impossible."""
    counted = np.stack([np.bincount(of_layer, minlength=NUM_CLASSES) for of_layer in labels.T]) + 0.5
    return torch.from_numpy(counted / counted.sum(1, keepdims=True))


def _moments(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of what enters each layer, over rows and windows: ``[L, 1, D]`` each."""
    number = 0
    total = squares = torch.zeros(1, dtype=torch.float64)
    for start in range(0, len(rows), _EVALUATED):
        features = torch.from_numpy(rows.features(np.arange(start, min(start + _EVALUATED, len(rows))))).double()
        number += features.shape[0] * features.shape[2]
        total = total + features.sum((0, 2))
        squares = squares + features.square().sum((0, 2))
    mean = total / number
    deviation = (squares / number - mean.square()).clamp(min=0).sqrt()
    # A unit that says the same of every prompt says nothing of any: do not blow up its rounding.
    floor = 1e-3 * deviation.mean(-1, keepdim=True) + 1e-6
    return mean[:, None].float(), torch.maximum(deviation, floor)[:, None].float()


@torch.no_grad()
def _absorb(routers: LayerRouters, mean: torch.Tensor, deviation: torch.Tensor) -> None:
    """Let the first linear layer standardize: W(x − m)/s + b = (W/s)x + (b − (W/s)m)."""
    routers.weight_in.div_(deviation.transpose(1, 2))
    routers.bias_in.sub_(torch.bmm(mean, routers.weight_in)[:, 0])


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

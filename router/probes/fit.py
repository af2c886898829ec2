"""Fitting a probe: cross-entropy with balanced classes, early stopping on macro-F1.

The fit is independent of the source of the states. On a CPU the same seed gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from router.fitting import EpochRecord, fit_with_early_stopping
from router.probes.metrics import macro_f1
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe_requests import ProbeFitConfig

#: Steps' worth of texts that are sorted by their length, so that a step has little padding.
_SORTED_STEPS = 16
#: Most texts of a batch, and most tokens with padding, outside of training.
_EVALUATED_TEXTS, _EVALUATED_TOKENS = 64, 4096


class Texts(Protocol):
    """Labelled texts with their states, from any source."""

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """Indices of the texts' labels, ``[N]``."""
        ...

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Number of tokens of each text, ``[N]``."""
        ...

    def states(self, index: int) -> np.ndarray[Any, Any]:
        """States of one text, ``[T, S, D]`` in float16."""
        ...


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A fitted probe, and the course of the fitting.

    Attributes:
        network: The best network by macro-F1 on the held-out texts.
        logits: The network's logits on the held-out texts, ``[N, classes]``.
        history: A record for each epoch: ``epoch``, ``train_loss``, ``loss``, ``accuracy``, ``macro_f1``,
            ``learning_rate``, ``seconds``. ``loss`` and the scores are of the held-out texts.
        best: The record of the epoch that was kept.
    """

    network: ProbeNetwork
    logits: torch.Tensor
    history: list[dict[str, float]]
    best: dict[str, float]


def fit_probe(
    train: Texts,
    held_out: Texts,
    shape: ProbeConfig,
    config: ProbeFitConfig,
    *,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> FittedProbe:
    """Fit a probe.

    Args:
        train: Texts to learn from.
        held_out: Texts to stop by.
        shape: The probe's shape.
        config: Settings of the fitting.
        device: Device of the fitting.
        on_epoch: Receives every epoch's record.

    Raises:
        ValueError: There are no texts, the training texts have one label only, or training diverges.
    """
    if not len(train.labels) or not len(held_out.labels):
        raise ValueError(
            f"there must be texts to train on and texts held out, got {len(train.labels)} and {len(held_out.labels)}"
        )
    totals = np.bincount(train.labels, minlength=shape.num_classes)
    if (totals > 0).sum() < 2:
        raise ValueError("every text has the same label: there is nothing to learn")
    cross_entropy = nn.CrossEntropyLoss(weight=_class_weights(totals, config.balance).to(device))
    network = ProbeNetwork(shape, seed=config.seed).to(device)
    rng = np.random.default_rng(config.seed)
    targets = torch.from_numpy(held_out.labels)

    def loss(rows: np.ndarray[Any, Any]) -> tuple[torch.Tensor, int]:
        states, valid = collated([train.states(row) for row in rows])
        labels = torch.from_numpy(train.labels[rows]).to(device)
        return cross_entropy(network(states.to(device), valid.to(device)), labels), len(rows)

    def evaluate() -> EpochRecord:
        logits = logits_of(network, held_out, device=device)
        chosen = logits.argmax(1).numpy()
        return {
            "loss": float(cross_entropy(logits.to(device), targets.to(device))),
            "accuracy": float((chosen == held_out.labels).mean()),
            "macro_f1": macro_f1(held_out.labels, chosen),
        }

    course = fit_with_early_stopping(
        network,
        config,
        num_rows=len(train.labels),
        batches=lambda: _batches(train.lengths, config.batch_size, rng),
        loss=loss,
        evaluate=evaluate,
        on_epoch=on_epoch,
    )
    logits = logits_of(network, held_out, device=device)
    return FittedProbe(
        network=network.cpu().eval().requires_grad_(False), logits=logits, history=course.history, best=course.best
    )


@torch.inference_mode()
def logits_of(network: ProbeNetwork, texts: Texts, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """A probe's logits on texts, ``[N, classes]``."""
    network.eval()
    logits = torch.empty(len(texts.lengths), network.config.num_classes)
    order = np.argsort(-texts.lengths, kind="stable")
    while len(order):
        size = int(np.clip(_EVALUATED_TOKENS // max(1, texts.lengths[order[0]]), 1, _EVALUATED_TEXTS))
        rows, order = order[:size], order[size:]
        states, valid = collated([texts.states(row) for row in rows])
        logits[torch.from_numpy(rows)] = network(states.to(device), valid.to(device)).float().cpu()
    return logits


def collated(texts: Sequence[np.ndarray[Any, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """States ``[T, S, D]`` of some texts as a probe takes them: ``[B, S, T, D]`` in float32, and which are valid."""
    lengths = torch.tensor([len(text) for text in texts])
    joined = torch.zeros(len(texts), int(lengths.max()), *texts[0].shape[1:])
    for row, text in zip(joined, texts):
        row[: len(text)] = torch.from_numpy(text)
    return joined.transpose(1, 2), torch.arange(joined.shape[1]) < lengths[:, None]


def _batches(
    lengths: np.ndarray[Any, Any], batch_size: int, random: np.random.Generator
) -> Iterator[np.ndarray[Any, Any]]:
    """Batches of all rows once, in a random order; the rows of a batch are of similar length."""
    order = random.permutation(len(lengths))
    size = batch_size * _SORTED_STEPS
    steps = []
    for start in range(0, len(order), size):
        some = order[start : start + size]
        some = some[np.argsort(lengths[some], kind="stable")]
        steps += [some[first : first + batch_size] for first in range(0, len(some), batch_size)]
    for index in random.permutation(len(steps)):
        yield steps[index]


def _class_weights(totals: np.ndarray[Any, Any], balance: float) -> torch.Tensor:
    """A weight for each label; the mean weight of the training texts is one."""
    weights = np.maximum(totals, 1).astype(np.float64) ** -balance
    weights *= totals.sum() / (weights * totals).sum()
    return torch.from_numpy(weights).float()

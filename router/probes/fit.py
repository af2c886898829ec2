"""Fitting a probe: cross-entropy with balanced classes, AdamW, cosine with warm-up, early stopping on macro-F1.

Nothing here knows where states come from. On a CPU the same seed gives the same bits.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from router.fitting import cosine_with_warmup
from router.probes.metrics import macro_f1
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe_requests import ProbeFitConfig

#: Steps' worth of texts that are sorted by their length, so that a step has little padding.
_SORTED_STEPS = 16
#: Texts, and tokens with padding, that are read at once where nothing is learnt from them.
_EVALUATED, _EVALUATED_TOKENS = 64, 4096


class Texts(Protocol):
    """Labelled texts, wherever their states lie."""

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """Numbers of their labels ``[N]``."""
        ...

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        """Tokens of each ``[N]``."""
        ...

    def states(self, index: int) -> np.ndarray[Any, Any]:
        """States of one text, ``[T, S, D]`` in float16."""
        ...


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """What came of fitting.

    Attributes:
        network: The best one by macro-F1 on the held-out texts.
        logits: What it says of those, ``[N, classes]``.
        history: A record for each epoch: ``epoch``, ``train_loss``, ``loss``, ``accuracy``, ``macro_f1``,
            ``learning_rate``, ``seconds``; all but ``train_loss`` of the held-out texts.
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
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
) -> FittedProbe:
    """Fit a probe.

    Args:
        train: Texts to learn from.
        held_out: Texts to stop by.
        shape: The probe's shape.
        config: How to fit.
        device: Where.
        on_epoch: Told of every epoch's record.

    Raises:
        ValueError: There are no texts, the training texts have one label only, or training diverges.
    """
    if not len(train.labels) or not len(held_out.labels):
        raise ValueError(
            f"there must be texts to train on and texts held out, got {len(train.labels)} and {len(held_out.labels)}"
        )
    totals = np.bincount(train.labels, minlength=shape.num_classes)
    if (totals > 0).sum() < 2:
        raise ValueError("every text has the same label: there is nothing to tell apart")
    loss_of = nn.CrossEntropyLoss(weight=_class_weights(totals, config.balance).to(device))
    network = ProbeNetwork(shape, seed=config.seed).to(device)
    steps = config.epochs * math.ceil(len(train.labels) / config.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine_with_warmup(steps, round(config.warmup * steps)))
    random = np.random.default_rng(config.seed)
    targets = torch.from_numpy(held_out.labels)
    history: list[dict[str, float]] = []
    best: dict[str, float] = {}
    best_weights, best_logits = network.state_dict(), torch.empty(0)
    for epoch in range(1, config.epochs + 1):
        began, total = time.perf_counter(), 0.0
        network.train()
        for rows in _batches(train.lengths, config.batch_size, random):
            states, valid = collated([train.states(row) for row in rows])
            loss = loss_of(
                network(states.to(device), valid.to(device)), torch.from_numpy(train.labels[rows]).to(device)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        if not math.isfinite(total):
            raise ValueError(f"the loss is no number any more at a learning rate of {config.learning_rate:g}")
        logits = logits_of(network, held_out, device=device)
        chosen = logits.argmax(1).numpy()
        record = {
            "epoch": float(epoch),
            "train_loss": total / len(train.labels),
            "loss": float(loss_of(logits.to(device), targets.to(device))),
            "accuracy": float((chosen == held_out.labels).mean()),
            "macro_f1": macro_f1(held_out.labels, chosen),
            "learning_rate": float(schedule.get_last_lr()[0]),
            "seconds": time.perf_counter() - began,
        }
        history.append(record)
        on_epoch(record)
        if not best or record["macro_f1"] > best["macro_f1"]:
            best, best_weights, best_logits = record, copy.deepcopy(network.state_dict()), logits
        elif epoch - best["epoch"] >= config.patience:
            break
    network.load_state_dict(best_weights)
    return FittedProbe(
        network=network.cpu().eval().requires_grad_(False), logits=best_logits, history=history, best=best
    )


@torch.inference_mode()
def logits_of(network: ProbeNetwork, texts: Texts, *, device: torch.device | str = "cpu") -> torch.Tensor:
    """What a probe says of texts, ``[N, classes]``."""
    network.eval()
    logits = torch.empty(len(texts.lengths), network.config.num_classes)
    order = np.argsort(-texts.lengths, kind="stable")
    while len(order):
        together = int(np.clip(_EVALUATED_TOKENS // max(1, texts.lengths[order[0]]), 1, _EVALUATED))
        rows, order = order[:together], order[together:]
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
    """All rows once, in a random order, those of a step of like lengths."""
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
    """A weight for each label; of the training texts' weights the mean is one."""
    weights = np.maximum(totals, 1).astype(np.float64) ** -balance
    weights *= totals.sum() / (weights * totals).sum()
    return torch.from_numpy(weights).float()

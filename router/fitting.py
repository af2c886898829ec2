"""The one fitting loop: AdamW, a warm-up and then a cosine, and the weights of the epoch with the best macro-F1.

Routers and probes are both fitted by it; what differs (batches, loss, held-out scores) is passed in. On a CPU the same
batches give the same bits.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import nn

BatchT = TypeVar("BatchT")

#: One epoch's figures, by name.
EpochRecord = dict[str, float]


class FitSettings(Protocol):
    """The settings of the loop, which each configuration provides."""

    @property
    def epochs(self) -> int:
        """Most passes over the training rows."""
        ...

    @property
    def batch_size(self) -> int:
        """Number of rows in a step of the optimizer."""
        ...

    @property
    def learning_rate(self) -> float:
        """Highest learning rate of AdamW."""
        ...

    @property
    def weight_decay(self) -> float:
        """Weight decay of AdamW."""
        ...

    @property
    def patience(self) -> int:
        """Epochs without a better macro-F1 after which fitting ends."""
        ...

    def warmup_of(self, num_steps: int) -> int:
        """Steps until the highest learning rate is reached, of a training of the given length."""
        ...


@dataclass(frozen=True, kw_only=True)
class FitHistory:
    """The course of a fitting.

    Attributes:
        history: A record for each epoch; see ``fit_with_early_stopping``.
        best: The record of the epoch whose weights were kept.
    """

    history: list[EpochRecord]
    best: EpochRecord


def fit_with_early_stopping(
    network: nn.Module,
    settings: FitSettings,
    *,
    num_rows: int,
    batches: Callable[[], Iterable[BatchT]],
    loss: Callable[[BatchT], tuple[torch.Tensor, int]],
    evaluate: Callable[[], EpochRecord],
    on_epoch: Callable[[EpochRecord], None],
) -> FitHistory:
    """Fit a network, and leave it with the weights of its best epoch.

    Args:
        network: The network, on its device.
        settings: Settings of the fitting.
        num_rows: Training rows of an epoch.
        batches: Gives one epoch's batches, in a new order each time.
        loss: The mean loss of a batch, and how many rows the batch has.
        evaluate: Scores the network on the held-out rows: ``macro_f1`` and whatever else the record should hold.
        on_epoch: Receives every epoch's record: ``epoch``, ``train_loss``, the scores, ``learning_rate``, ``seconds``.

    Raises:
        ValueError: The loss is not finite.
    """
    num_steps = settings.epochs * math.ceil(num_rows / settings.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, cosine_with_warmup(num_steps, settings.warmup_of(num_steps))
    )
    history: list[EpochRecord] = []
    best: EpochRecord = {}
    best_weights: dict[str, torch.Tensor] = {}
    for epoch in range(1, settings.epochs + 1):
        began, total_loss = time.perf_counter(), 0.0
        network.train()
        for batch in batches():
            batch_loss, batch_rows = loss(batch)
            optimizer.zero_grad()
            batch_loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total_loss += float(batch_loss.detach()) * batch_rows
        if not math.isfinite(total_loss):
            raise ValueError(
                f"the loss is not finite in epoch {epoch} at a learning rate of {settings.learning_rate:g}; "
                "a smaller one may help"
            )
        record = {
            "epoch": float(epoch),
            "train_loss": total_loss / num_rows,
            **evaluate(),
            "learning_rate": float(schedule.get_last_lr()[0]),
            "seconds": time.perf_counter() - began,
        }
        history.append(record)
        on_epoch(record)
        if not best or record["macro_f1"] > best["macro_f1"]:
            best, best_weights = record, copy.deepcopy(network.state_dict())
        elif epoch - best["epoch"] >= settings.patience:
            break
    network.load_state_dict(best_weights)
    return FitHistory(history=history, best=best)


def cosine_with_warmup(num_steps: int, num_warmup_steps: int) -> Callable[[int], float]:
    """The learning rate as a fraction of its highest, by the step.

    Args:
        num_steps: Steps of the whole training.
        num_warmup_steps: Steps until the highest learning rate is reached.
    """

    def fraction(step: int) -> float:
        if step < num_warmup_steps:
            return (step + 1) / (num_warmup_steps + 1)
        done = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return fraction

"""Training per-layer routers: labels of every layer, window features along them, and the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.features.window_features import FeatureStore
from router.fitting import EpochRecord
from router.heads.kind import ModelService, TrainedHead
from router.heads.per_layer.fit import CLASSES, FittedRouters, fit
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.heads.per_layer.routers import RouterConfig
from router.heads.per_layer.training_plot import draw_training
from router.labels.from_runs import RunData, consensus_labels, shortest_labels
from router.labels.label_request import LabelRequest
from router.labels.labelled import NUM_CLASSES, Labelled, TrainingLabels, describe_left_out, held_out_prompts, split
from router.menu.candidates import SearchedRun
from router.menu.expected_labels import expected_labels


@dataclass(frozen=True)
class StoredRows:
    """Labelled examples whose features a store has; N of them.

    Attributes:
        store: The store.
        paths: The programs along which the features are, and the prompts.
        counts: The label of each, ``[N, L]``.
        shares: What is expected of each count of each layer, ``[N, L, 3]``.
    """

    store: FeatureStore
    paths: Sequence[Labelled]
    counts: np.ndarray[Any, Any]
    shares: np.ndarray[Any, Any]

    @classmethod
    def of(
        cls, store: FeatureStore, rows: Sequence[Labelled], *, along: Sequence[Labelled] | None = None
    ) -> StoredRows:
        """Labelled examples, with the features along their labels, or along other programs."""
        counts = np.array([row.counts for row in rows], dtype=np.int64)
        shares = np.eye(NUM_CLASSES)[counts]
        for index, row in enumerate(rows):
            if row.shares is not None:
                shares[index] = row.shares
        return cls(store, rows if along is None else along, counts, shares)

    def __len__(self) -> int:
        return len(self.paths)

    def features(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.store.read([self.paths[index] for index in indices])


@dataclass(frozen=True, kw_only=True)
class TrainedPerLayer(TrainedHead):
    """Trained routers, and the course of their fitting.

    Attributes:
        fitted: The fitted network with the records of its training.
    """

    fitted: FittedRouters


def label_per_layer(
    runs: RunData, request: LabelRequest, head: PerLayerRequest, service: ModelService
) -> TrainingLabels:
    """Step 1: a label for each example. Only ``expected`` labels need the base model.

    Raises:
        UserError: There are too few examples.
    """
    left_out = runs.left_out
    if request.labels == "expected":
        rows, left_out = _expected(request, head, service), {}
    elif request.labels == "consensus":
        rows = consensus_labels(runs.solved, consensus_price=request.consensus_price)
    else:
        rows = shortest_labels(runs.solved)
    service.announce(_described(runs.base.name, rows, left_out))
    train, held_out = split(rows, request.held_out, seed=head.seed)
    classes = {count for row in train for count in row.counts}
    return TrainingLabels(
        rows=rows,
        train=train,
        held_out=held_out,
        left_out=left_out,
        description=f"{runs.num_layers} routers",
        nothing_to_learn=None
        if len(classes) > 1
        else f"every label is '{CLASSES[min(classes)]}'; search with more --simulations, keep more programs, or raise "
        "--layer-price",
    )


def extract_per_layer(labels: TrainingLabels, head: PerLayerRequest, service: ModelService) -> FeatureStore:
    """Step 2: windows of each layer's input, along the labels."""
    return service.features(labels.rows, num_windows=head.num_windows)


def fit_per_layer(
    labels: TrainingLabels,
    store: FeatureStore,
    head: PerLayerRequest,
    on_epoch: Callable[[EpochRecord], None],
    *,
    others: Sequence[tuple[Labelled, Labelled]] = (),
) -> TrainedPerLayer:
    """Step 3: fit the routers.

    Args:
        labels: The labels.
        store: Has the features along them, and along the others.
        head: The configuration.
        on_epoch: Receives every epoch's record.
        others: Further rows to train on: training examples with their labels, and the same with the programs along
            which their states are read.

    Raises:
        ValueError: There is nothing to learn, or the loss is not finite.
    """
    first = store.read(labels.train[:1])
    shape = RouterConfig(
        num_layers=first.shape[1],
        hidden_size=first.shape[-1],
        num_windows=head.num_windows,
        width=head.width,
    )
    train = StoredRows.of(
        store,
        [*labels.train, *(label for label, _ in others)],
        along=[*labels.train, *(path for _, path in others)],
    )
    fitted = fit(train, StoredRows.of(store, labels.held_out), shape, head.fit, on_epoch=on_epoch)
    return TrainedPerLayer(
        head=PerLayerHead(fitted.routers),
        sample=fitted.held_out,
        best=fitted.best,
        f1={name: fitted.best[f"f1_{name}"] for name in CLASSES},
        made={"fit": asdict(head.fit), "held_out_layers": fitted.best["layers"]},
        fitted=fitted,
    )


def draw_per_layer(trained: TrainedPerLayer, file: Path) -> None:
    """Draw the training into a PNG file."""
    draw_training(trained.fitted, file)


def _expected(request: LabelRequest, head: PerLayerRequest, service: ModelService) -> list[Labelled]:
    """Expected labels of all runs; an example of two runs counts once."""
    rows: dict[tuple[str, str], Labelled] = {}
    for path, questions in request.sources:
        run = SearchedRun.read(path, questions=questions)
        found = expected_labels(
            run,
            service,
            num_windows=head.num_windows,
            layer_price=request.layer_price,
            held_out=held_out_prompts(run.base_labels, request.held_out, seed=head.seed),
        )
        for row in found.rows:
            rows.setdefault((row.example_id, row.prompt), row)
        service.announce(
            f"The labels of {path}, from {len(found.candidates)} candidate programs, are right on "
            f"{100 * found.right:.1f} % of the examples with {found.layers:.2f} layers, the base model on "
            f"{100 * found.base_right:.1f} %."
        )
    return list(rows.values())


def _described(base: str, rows: Sequence[Labelled], left_out: dict[str, int]) -> str:
    """A line that describes the labels."""
    by_task: dict[str, int] = {}
    for row in rows:
        by_task[row.task] = by_task.get(row.task, 0) + 1
    counts = np.array([row.counts for row in rows])
    shares = ", ".join(f"{name} {100 * (counts == number).mean():.1f} %" for number, name in enumerate(CLASSES))
    tasks = ", ".join(f"{number} {task}" for task, number in by_task.items())
    different = len({row.counts for row in rows})
    fixed = " Every example has the same label: the routers will always choose it." if different == 1 else ""
    return (
        f"{len(rows)} examples ({tasks}) of {base}; {different} different labels: {shares}"
        f"{describe_left_out(left_out)}.{fixed}"
    )

"""Training the routers of all layers: from labelled questions to a ``Learnt``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from router.features.window_features import FeatureStore
from router.heads.head import Learnt
from router.heads.per_layer.fit import CLASSES, fit
from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.heads.per_layer.routers import RouterConfig
from router.heads.per_layer.training_plot import draw_training
from router.labels.labelled import Labelled


@dataclass(frozen=True)
class StoredRows:
    """Labelled rows whose features a store has."""

    store: FeatureStore
    rows: Sequence[Labelled]
    counts: np.ndarray[Any, Any]

    @classmethod
    def of(cls, store: FeatureStore, rows: Sequence[Labelled]) -> StoredRows:
        """The rows with their labels as an array."""
        return cls(store, rows, np.array([row.counts for row in rows], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.store.read([self.rows[index] for index in indices])


def train_per_layer(
    learnt: Sequence[Labelled],
    held_out: Sequence[Labelled],
    request: PerLayerRequest,
    store: FeatureStore,
    *,
    on_epoch: Callable[[dict[str, float]], None],
) -> Learnt:
    """Train the routers.

    Args:
        learnt: Questions to learn from.
        held_out: Questions to stop by.
        request: What is trained, and how.
        store: Has the features of all.
        on_epoch: Told of every epoch's record.

    Raises:
        ValueError: There is nothing to learn, or the loss is no number any more.
    """
    first = store.read(learnt[:1])
    size = RouterConfig(
        num_layers=first.shape[1],
        hidden_size=first.shape[-1],
        num_windows=request.num_windows,
        width=request.width,
    )
    fitted = fit(StoredRows.of(store, learnt), StoredRows.of(store, held_out), size, request.fit, on_epoch=on_epoch)
    return Learnt(
        head=PerLayerHead(fitted.routers),
        sample=fitted.held_out,
        best=fitted.best,
        f1={name: fitted.best[f"f1_{name}"] for name in CLASSES},
        made={"fit": asdict(request.fit), "held_out_layers": fitted.best["layers"]},
        draw=partial(draw_training, fitted),
    )

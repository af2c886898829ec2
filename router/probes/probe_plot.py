"""The picture of a probe's training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from router.probes.fit import FittedProbe, Texts, collated

#: Texts over which a layer's weight is averaged, at most.
_WEIGHED = 256


def layer_weights(fitted: FittedProbe, texts: Texts) -> np.ndarray[Any, Any]:
    """Mean weight of each state over some texts, ``[S]``."""
    rows = range(min(len(texts.labels), _WEIGHED))
    with torch.inference_mode():
        weights = [fitted.network.layer_weights(*collated([texts.states(row)]))[0] for row in rows]
    mean: np.ndarray[Any, Any] = torch.stack(weights).mean(0).numpy()
    return mean


def draw_probe(
    fitted: FittedProbe, metrics: dict[str, Any], labels: Sequence[str], held_out: Texts, file: Path
) -> None:
    """Loss and scores by epoch, the held-out texts' confusion matrix, and the layers' weights, as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.8), layout="constrained")
    curves, matrix, layers = figure.subplots(1, 3)
    epochs = [record["epoch"] for record in fitted.history]
    for name, label in (("train_loss", "loss, training"), ("loss", "loss, held out"), ("macro_f1", "macro-F1")):
        curves.plot(epochs, [record[name] for record in fitted.history], label=label)
    curves.axvline(fitted.best["epoch"], color="black", linestyle=":", label="kept")
    curves.set(title="Training", xlabel="epoch")
    curves.legend(fontsize=8)
    confusion = np.array(metrics["confusion"])
    shares = confusion / confusion.sum(1, keepdims=True).clip(min=1)
    matrix.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    if len(labels) <= 12:
        for (row, column), number in np.ndenumerate(confusion):
            color = "white" if shares[row, column] > 0.5 else "black"
            matrix.text(column, row, f"{number}", ha="center", va="center", color=color)
        matrix.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        matrix.set_yticks(range(len(labels)), labels)
    matrix.set(title="Held-out labels and choices", xlabel="chosen", ylabel="label")
    weights = layer_weights(fitted, held_out)
    layers.bar(range(len(weights)), weights)
    layers.set(title="Weight of each state", xlabel="state (0: embeddings; l: behind layer l)", ylabel="mean share")
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]

"""The picture of the routers' training."""

from __future__ import annotations

from pathlib import Path

from router.heads.per_layer.fit import CLASSES, FittedRouters


def draw_training(fitted: FittedRouters, file: Path) -> None:
    """Loss curves, scores and the confusion matrix of the held-out rows, as one PNG."""
    # The object-oriented interface needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    epochs = [record["epoch"] for record in fitted.history]
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    losses, scores, matrix = figure.subplots(1, 3)
    for name, label in (("train_loss", "training"), ("loss", "held out")):
        losses.plot(epochs, [record[name] for record in fitted.history], label=label)
    losses.set(title="Focal loss", xlabel="epoch")
    losses.legend()
    for name, label in (("macro_f1", "macro-F1"), *((f"f1_{name}", f"F1 of {name}") for name in CLASSES)):
        scores.plot(epochs, [record[name] for record in fitted.history], label=label)
    scores.axvline(fitted.best["epoch"], color="black", linestyle=":", label="kept")
    scores.set(title="Held-out decisions", xlabel="epoch", ylim=(0, 1.02))
    scores.legend()
    shares = fitted.confusion / fitted.confusion.sum(1, keepdims=True).clip(min=1)
    matrix.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in ((row, column) for row in range(3) for column in range(3)):
        dark = shares[row, column] > 0.5
        text = f"{fitted.confusion[row, column]:,}\n{100 * shares[row, column]:.0f} %"
        matrix.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    matrix.set(title="Held-out labels and decisions", xlabel="decided", ylabel="label")
    matrix.set_xticks(range(3), CLASSES)
    matrix.set_yticks(range(3), CLASSES)
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]

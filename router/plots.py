"""Pictures of a training and of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from router.fit import CLASSES, Fitted

if TYPE_CHECKING:
    from router.evaluate import Evaluation


def draw_training(fitted: Fitted, file: Path) -> None:
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


def draw_evaluation(evaluation: Evaluation, file: Path) -> None:
    """Accuracy against layers: every contender with its interval, and the routed model's curve by budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for result in evaluation.results:
        low, high = result.interval
        errors = [[100 * (result.accuracy - low)], [100 * (high - result.accuracy)]]
        axes.errorbar(
            [result.layers], [100 * result.accuracy], yerr=errors, fmt="o", capsize=3, label=_named(result.contender)
        )
    curve = sorted(evaluation.curve.items())
    if curve:
        layers = [result.layers for _, result in curve]
        axes.plot(layers, [100 * result.accuracy for _, result in curve], "k.:", label="routed, by budget")
        for (budget, result), x in zip(curve, layers):
            axes.annotate(
                f"{budget:g}", (x, 100 * result.accuracy), textcoords="offset points", xytext=(3, 4), fontsize=8
            )
    axes.axvline(evaluation.num_layers, color="black", linewidth=0.6)
    axes.set(
        title=f"Right answers on {evaluation.questions} held-out questions", xlabel="mean layers run", ylabel="% right"
    )
    axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]


def _named(contender: str) -> str:
    return f"{contender} (knows the answers)" if contender == "search" else contender

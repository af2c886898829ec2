"""The picture of an evaluation: accuracy against layers, for every method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.evaluation.evaluation_results import EvaluationResults


def draw_evaluation(evaluation: EvaluationResults, file: Path) -> None:
    """Accuracy against layers: every method with its interval, and the routed model's curve by budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for result in evaluation.results:
        low, high = result.interval
        errors = [[100 * (result.accuracy - low)], [100 * (high - result.accuracy)]]
        axes.errorbar(
            [result.layers], [100 * result.accuracy], yerr=errors, fmt="o", capsize=3, label=_named(result.method)
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
        title=f"Right answers on {evaluation.questions} held-out examples", xlabel="mean layers run", ylabel="% right"
    )
    axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]


def _named(method: str) -> str:
    return f"{method} (knows the answers)" if method == "search" else method

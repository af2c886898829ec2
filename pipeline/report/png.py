"""Figures as PNG files, for papers and slides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.report.charts import Bars, Chart, Heatmap, clipped


def write(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """Draw charts into a folder.

    Returns:
        The files, ``NAME.png`` for each chart.

    Raises:
        UserError: The folder cannot be written.
    """
    # The object-oriented interface needs no display and no global state.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart in charts:
            height = 1.4 + 0.34 * len(chart.rows) if isinstance(chart, Heatmap) else 3.8
            with rc_context({"text.parse_math": False}):  # a task's name may look like a formula
                figure = Figure(figsize=(7.2, height), layout="constrained")
                axes = figure.subplots()
                axes.set(title=chart.title, xlabel=chart.x_label)
                _draw(chart, figure, axes)
                files.append(folder / f"{chart.name}.png")
                FigureCanvasAgg(figure).print_png(files[-1], metadata={"Software": None})  # type: ignore[no-untyped-call]
    except OSError as error:
        raise UserError(f"folder {folder} for the pictures cannot be written: {error.strerror or error}") from None
    return files


def _draw(chart: Chart, figure: Any, axes: Any) -> None:
    if isinstance(chart, Heatmap):
        shares = [[100 * value for value in row] for row in chart.values]
        image = axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0)
        axes.set_yticks(range(len(chart.rows)), [clipped(row) for row in chart.rows])
        every = -(-len(chart.columns) // 20)
        axes.set_xticks(range(0, len(chart.columns), every), chart.columns[::every])
        figure.colorbar(image, ax=axes, label="%")
        return
    axes.set_ylabel(chart.y_label)
    shown: list[tuple[Any, str]] = []
    if isinstance(chart, Bars):
        bottom = [0.0] * len(chart.categories)
        for series in chart.series:
            shown.append((axes.bar(chart.categories, series.values, bottom=bottom), series.name))
            bottom = [low + value for low, value in zip(bottom, series.values)]
        every = max(1, -(-len(chart.categories) // 16))
        indices = range(0, len(chart.categories), every)
        axes.set_xticks(indices, [clipped(chart.categories[index]) for index in indices])
    else:
        for line in chart.lines:
            xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
            [curve] = axes.plot(xs, ys, marker=".", drawstyle="steps-post" if line.steps else "default")
            shown.append((curve, line.name))
        if chart.vertical_line:
            shown.append((axes.axvline(chart.vertical_line[0], color="black", linestyle=":"), chart.vertical_line[1]))
        axes.set_ylim(bottom=0)
    axes.legend([artist for artist, _ in shown], [clipped(name) for _, name in shown], fontsize=8)

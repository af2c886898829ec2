"""Figures as SVG in a page: the page's style sheet sets the colours, and every mark shows its number on hovering.

Nothing here needs a script: a mark's ``<title>`` is its tooltip.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.report.charts import Bars, Chart, Heatmap, Line, Lines, clipped, ticks

WIDTH = 720
#: Number of colours in the style sheet; further curves use them again.
COLOURS = 7
#: Room around the plot.
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 46
_PLOT_HEIGHT = 240
_CELL_HEIGHT = 26
_WIDEST_BAR = 90
#: Approximate width of a letter in a name.
_NAME_WIDTH = 7.0
_LEGEND_LINE = 18


def draw(chart: Chart) -> str:
    """A chart as one ``<svg>`` element."""
    if isinstance(chart, Heatmap):
        return _heatmap(chart)
    return _bars(chart) if isinstance(chart, Bars) else _lines(chart)


class _Frame:
    """A plot's coordinates, its axes and the marks so far."""

    def __init__(self, chart: Bars | Lines, names: Sequence[str], *, x_range: tuple[float, float], top: float) -> None:
        self.chart = chart
        self.low, self.high = x_range
        levels = ticks(0, top)
        self.top = max(top, levels[-1])
        self.parts: list[str] = []
        self.above = self._legend(names)
        for level in levels:
            y = self.y(level)
            self.parts.append(_rule(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
            self.parts.append(_text(_LEFT - 6, y + 4, f"{level:g}", anchor="end"))
        middle = self.above + _PLOT_HEIGHT / 2
        self.parts.append(_text(14, middle, chart.y_label, extra=f' transform="rotate(-90 14 {middle:g})"'))
        self.parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, self.above + _PLOT_HEIGHT + 38, chart.x_label))

    def x(self, value: float) -> float:
        return _LEFT + (value - self.low) / max(self.high - self.low, 1e-9) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.above + _PLOT_HEIGHT * (1 - value / self.top)

    def x_tick(self, value: float, text: str) -> None:
        self.parts.append(_text(self.x(value), self.above + _PLOT_HEIGHT + 18, text))

    def _legend(self, names: Sequence[str]) -> int:
        """Write the legend, in as many lines as it takes, and return where the plot begins below it."""
        x, line = float(_LEFT), 0
        for index, name in enumerate(map(clipped, names)):
            width = 34 + _NAME_WIDTH * len(name)
            if x > _LEFT and x + width > WIDTH:
                x, line = float(_LEFT), line + 1
            y = 8 + line * _LEGEND_LINE
            self.parts.append(f'<rect class="fill{index % COLOURS}" x="{x:g}" y="{y}" width="12" height="12"/>')
            self.parts.append(_text(x + 17, y + 10, name, anchor="start"))
            x += width
        return _TOP + line * _LEGEND_LINE

    def svg(self) -> str:
        return _svg(self.chart, self.above + _PLOT_HEIGHT + _BOTTOM, self.parts)


def _bars(chart: Bars) -> str:
    number = len(chart.categories)
    heights = [sum(series.values[bar] for series in chart.series) for bar in range(number)]
    names = [series.name for series in chart.series]
    frame = _Frame(chart, names, x_range=(-0.5, number - 0.5), top=max([*heights, 1]))
    every = -(-number // 16)
    half = min(0.4, _WIDEST_BAR / 2 * number / (WIDTH - _LEFT - _RIGHT))
    for bar, category in enumerate(chart.categories):
        if bar % every == 0:
            frame.x_tick(bar, clipped(category))
        bottom = 0.0
        for index, series in enumerate(chart.series):
            value = series.values[bar]
            if value <= 0:
                continue
            left, right = frame.x(bar - half), frame.x(bar + half)
            upper, lower = frame.y(bottom + value), frame.y(bottom)
            said = f"{chart.x_label} {category}: {value:g} {chart.y_label}, {series.name}"
            frame.parts.append(
                f'<rect class="fill{index % COLOURS} mark" x="{left:.1f}" y="{upper:.1f}" width="{right - left:.1f}" '
                f'height="{lower - upper:.1f}">{_title(said)}</rect>'
            )
            bottom += value
    return frame.svg()


def _lines(chart: Lines) -> str:
    xs = [x for line in chart.lines for x, _ in line.points] + ([chart.vertical_line[0]] if chart.vertical_line else [])
    ys = [y for line in chart.lines for _, y in line.points]
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    frame = _Frame(chart, [line.name for line in chart.lines], x_range=(low, high), top=max(ys, default=0) or 1)
    for tick in ticks(low, high, most=11):
        frame.x_tick(tick, f"{tick:g}")
    if chart.vertical_line:
        x = frame.x(chart.vertical_line[0])
        rule = _rule(x, frame.above, x, frame.above + _PLOT_HEIGHT, "border")
        frame.parts.append(f"<g>{rule}{_title(chart.vertical_line[1])}</g>")
    for index, line in enumerate(chart.lines):
        way = _way(line, frame)
        frame.parts.append(f'<polyline class="line{index % COLOURS}" points="{way}"/>')
        for x, y in line.points:
            said = f"{chart.x_label} {x:g}: {y:.4g} {chart.y_label}, {line.name}"
            frame.parts.append(
                f'<circle class="fill{index % COLOURS} mark" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3">'
                f"{_title(said)}</circle>"
            )
    return frame.svg()


def _way(line: Line, frame: _Frame) -> str:
    points: list[tuple[float, float]] = []
    for x, y in line.points:
        if line.steps and points:
            points.append((x, points[-1][1]))
        points.append((x, y))
    return " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)


def _heatmap(chart: Heatmap) -> str:
    left = 12 + _NAME_WIDTH * max((len(clipped(row)) for row in chart.rows), default=0)
    cell = (WIDTH - left - _RIGHT) / max(len(chart.columns), 1)
    peak = max((value for row in chart.values for value in row), default=0) or 1
    every = -(-len(chart.columns) // 20)
    top = 8
    parts = []
    for row, (name, values) in enumerate(zip(chart.rows, chart.values)):
        y = top + row * _CELL_HEIGHT
        parts.append(_text(left - 6, y + 17, clipped(name), anchor="end"))
        for column, value in enumerate(values):
            said = f"{name}, {chart.x_label} {chart.columns[column]}: {100 * value:.1f} %"
            parts.append(
                f'<rect class="cell mark" x="{left + column * cell:.1f}" y="{y}" width="{cell - 1:.1f}" '
                f'height="{_CELL_HEIGHT - 2}" fill-opacity="{value / peak:.3f}">{_title(said)}</rect>'
            )
    bottom = top + len(chart.rows) * _CELL_HEIGHT
    for column, name in enumerate(chart.columns):
        if column % every == 0:
            parts.append(_text(left + (column + 0.5) * cell, bottom + 14, name))
    middle = left + (WIDTH - left - _RIGHT) / 2
    parts.append(_text(middle, bottom + 34, f"{chart.x_label} (strongest colour: {100 * peak:.0f} %)"))
    return _svg(chart, bottom + 44, parts)


def _svg(chart: Chart, height: float, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(chart.title)}" '
        f'data-figure="{chart.name}">{"".join(parts)}</svg>'
    )


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _text(x: float, y: float, text: str, *, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'

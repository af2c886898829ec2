"""Figures and tables as data; ``svg``, ``png`` and ``page`` draw them."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True)
class Series:
    """One set of bars.

    Attributes:
        name: Name in the legend.
        values: Height of the bar for each category.
    """

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        name: Name in the legend.
        points: Points ``(x, y)`` from left to right.
        steps: Whether each value holds until the next point; straight lines join the points otherwise.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    steps: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Stacked bars over categories.

    Attributes:
        name: File name of the picture, without its ending.
        title: Title of the figure.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis, or of its unit.
        categories: Names of the bars.
        series: The sets of bars, stacked from below.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    categories: tuple[str, ...]
    series: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Curves over a common axis.

    Attributes:
        name: File name of the picture, without its ending.
        title: Title of the figure.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis, or of its unit.
        lines: The curves, in the order of the legend.
        vertical_line: ``(x, name)`` of a vertical line, such as the model's depth; None for no line.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    vertical_line: tuple[float, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Shares by row and column, from 0 to 1.

    Attributes:
        name: File name of the picture, without its ending.
        title: Title of the figure.
        x_label: Name of the horizontal axis.
        rows: Names of the rows.
        columns: Names of the columns.
        values: The shares, ``[rows, columns]``.
    """

    name: str
    title: str
    x_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


Chart = Bars | Lines | Heatmap


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of numbers, or of texts.

    Attributes:
        columns: Names of the columns; the first column names the rows.
        rows: Cells of each row, as the texts that are shown.
        texts: Whether the cells are texts, which may be long.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of a report.

    Attributes:
        title: Heading of the section.
        text: Paragraphs that say what the numbers show, and how far to trust them.
        tables: The tables below the text.
        charts: The figures below the tables.
    """

    title: str
    text: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers that span a range: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-9)
    step = next(
        candidate
        for power in range(-9, 18)
        for candidate in (1 * 10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if span / candidate <= most - 1
    )
    first = int(low // step)
    multiples = [round(factor * step, 9) for factor in range(first, first + most + 2)]
    return [tick for tick in multiples if low - step / 1e6 <= tick <= high + step / 1e6]


def clipped(name: str) -> str:
    """A name, cut to fit beside a figure; tables show the whole name."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def percent(share: float) -> str:
    """Format a share between 0 and 1 as a percentage."""
    return f"{100 * share:.0f} %"


def percent_of(part: int, whole: int) -> str:
    """Format a part of a whole as a percentage; a dash if the whole is 0."""
    return f"{100 * part / whole:.0f} %" if whole else "-"

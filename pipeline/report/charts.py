"""Figures and tables as data: what they show, not how they look (``svg``, ``png``, ``page``)."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_NAME = 40


@dataclass(frozen=True, kw_only=True)
class Series:
    """One set of bars.

    Attributes:
        name: In the legend.
        values: A height for each category.
    """

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        name: In the legend.
        points: ``(x, y)`` from left to right.
        steps: Each value holds until the next point, instead of a straight way there.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    steps: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Stacked bars over categories.

    Attributes:
        name: File name of the picture, without its ending.
        title: What is shown.
        x_label: What the categories are.
        y_label: What the heights are.
        categories: Names of the bars.
        series: What is stacked, from below.
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
        title: What is shown.
        x_label: The axis to the right.
        y_label: The axis upwards.
        lines: The curves.
        mark: ``(x, name)`` of an upright line, such as the model's depth; None for none.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    mark: tuple[float, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Shares by row and column, from 0 to 1.

    Attributes:
        name: File name of the picture, without its ending.
        title: What is shown.
        x_label: What the columns are.
        rows: Names of the rows.
        columns: Names of the columns.
        values: ``[rows, columns]``.
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
    """Numbers to read.

    Attributes:
        columns: Their names; the first one names the rows.
        rows: Texts, as they are shown.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One thing that a run shows.

    Attributes:
        title: Its heading.
        text: What is to be seen, and what to beware of; paragraphs.
        tables: Its numbers.
        charts: Its figures.
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
    marks = [round(place * step, 9) for place in range(first, first + most + 2)]
    return [mark for mark in marks if low - step / 1e6 <= mark <= high + step / 1e6]


def clipped(name: str) -> str:
    """A name that fits beside a figure; tables have it whole."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.0f} %"


def share(part: int, whole: int) -> str:
    """A percentage, or a dash where there is nothing to take it of."""
    return f"{100 * part / whole:.0f} %" if whole else "-"

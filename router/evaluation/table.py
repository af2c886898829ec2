"""An evaluation on the terminal: tables, and sentences on them."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.evaluation.evaluation_results import BASE, ROUTED, SEARCH, EvaluationResults, Result


def show_evaluation(evaluation: EvaluationResults, console: Console) -> None:
    """Print the methods side by side, the curve by budget, and a sentence on the identity program."""
    table = _table(
        f"Right answers on {evaluation.questions} held-out examples",
        ["", "right", "95 % CI", "won/lost", "McNemar p", "layers", "latency"],
    )
    for result in evaluation.results:
        table.add_row(*_cells(result))
    console.print(table)
    if any(result.method == SEARCH for result in evaluation.results):
        console.print("* The search knows the right answers: it is a ceiling, not a method.", highlight=False)
    if evaluation.curve:
        curve = _table("The routed model by budget", ["at most", "right", "95 % CI", "layers", "programs"])
        for budget, result in sorted(evaluation.curve.items(), reverse=True):
            right, interval = _cells(result)[1:3]
            curve.add_row(f"{100 * budget:g} %", right, interval, f"{result.layers:.2f}", str(result.programs))
        console.print(curve)
    for result in evaluation.results:
        if result.against is not None:
            lost, won, p_value = result.against
            console.print(
                f"{result.method} against the routed one: {won} examples won, {lost} lost (p = {p_value:.2g}).",
                highlight=False,
                markup=False,
            )
    routed = next((result for result in evaluation.results if result.method == ROUTED), None)
    if routed is not None:
        console.print(
            f"The routers fall back to the base model on {100 * routed.identity:.0f} % of the examples.",
            highlight=False,
        )
    elif len(evaluation.results) > 2:
        console.print(f"p-values are corrected for {len(evaluation.results) - 1} programs (Holm).", highlight=False)


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table that fits a terminal of 80 columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    return table


def _cells(result: Result) -> list[str]:
    low, high = result.interval
    base = result.method == BASE
    return [
        escape(result.method) + (" *" if result.method == SEARCH else ""),
        f"{100 * result.accuracy:.1f} %",
        f"{100 * low:.1f}–{100 * high:.1f}",
        "" if base else f"+{result.won}/−{result.lost}",
        "" if base else f"{result.p_value:.2g}",
        f"{result.layers:.2f}",
        "1.00" if base else "" if result.latency is None else f"{result.latency:.2f}",
    ]

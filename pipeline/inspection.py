"""Looking at a path data set: a summary, and which layers its best programs skip and repeat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import UserError
from pipeline.reporting import share
from pipeline.shards import read_paths, read_settings

if TYPE_CHECKING:
    import pandas as pd

_SPARKS = " ▁▂▃▄▅▆▇█"


def inspect_run(run: Path, console: Console, *, plots: Path | None = None) -> None:
    """Print what a run holds; write its pictures too where a folder for them is given.

    Raises:
        UserError: The folder is no run, or a shard is damaged.
    """
    settings = read_settings(run)
    rows = read_paths(run)
    state = "complete" if (run / "_SUCCESS").exists() else "incomplete"
    console.print(
        f"[bold]{escape(str(run))}[/]: {settings.get('task')} with {settings.get('model.name')}, {state}; "
        f"{rows.example_id.nunique()} questions, {len(rows)} programs kept",
        highlight=False,
    )
    if rows.empty:
        console.print("Nothing is committed yet.")
        return
    console.print(_outcomes(rows))
    best = rows[rows.is_best].program.map(tuple)
    console.print(f"{best.nunique()} different programs are the best of {len(best)} questions.", highlight=False)
    console.print(_layers(rows))
    if plots is not None:
        for file in draw(rows, plots):
            console.print(f"wrote {file}", highlight=False, markup=False)


def _outcomes(rows: pd.DataFrame) -> Table:
    """By the task: the base model's verdict, and what the search made of it."""
    table = Table(title="Questions", title_justify="left")
    for column in ("task", "base model", "questions", "solved within budget", "shorter", "mean saved layers"):
        table.add_column(column, justify="left" if column in ("task", "base model") else "right")
    for task, of_task in rows.groupby("task"):
        for right, part in of_task.groupby("baseline_correct"):
            questions, best = part.example_id.nunique(), part[part.is_best]
            table.add_row(
                str(task),
                "right" if right else "wrong",
                str(questions),
                f"{len(best)} ({share(len(best), questions)})",
                f"{(best.saved_layers > 0).sum()} ({share(int((best.saved_layers > 0).sum()), questions)})",
                f"{best.saved_layers.mean():.2f}" if len(best) else "-",
            )
    return table


def layer_use(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    """For each layer, the share of the best programs that skip it, and that run it more than once."""
    best = rows[rows.is_best]
    depth = int(rows.num_layers.iloc[0])
    skipped, repeated = [0.0] * depth, [0.0] * depth
    for program in best.program:
        ran = [0] * depth
        for layer in program:
            ran[layer] += 1
        for layer, count in enumerate(ran):
            skipped[layer] += (count == 0) / len(best)
            repeated[layer] += (count > 1) / len(best)
    return skipped, repeated


def _layers(rows: pd.DataFrame) -> Table:
    skipped, repeated = layer_use(rows)
    table = Table(title=f"Layers 0 to {len(skipped) - 1} in the best programs", title_justify="left")
    for column in ("", "by layer", "most often"):
        table.add_column(column)
    for name, use in (("skipped", skipped), ("repeated", repeated)):
        peak = max(max(use), 1e-9)
        bars = "".join(_SPARKS[round(part / peak * (len(_SPARKS) - 1))] for part in use)
        most = sorted(range(len(use)), key=lambda layer: -use[layer])[:3]
        named = ", ".join(f"{layer} ({100 * use[layer]:.0f} %)" for layer in most if use[layer] > 0)
        table.add_row(name, bars, named or "none")
    return table


def draw(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw the lengths of the best programs and the use of the layers.

    Returns:
        The PNG files written.

    Raises:
        UserError: The folder cannot be written.
    """
    # The object-oriented interface needs no display and no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {folder} for the pictures cannot be written: {error.strerror}") from None

    lengths = Figure(figsize=(7, 3.5), layout="constrained")
    axes = lengths.subplots()
    best = rows[rows.is_best]
    parts = {"kept right": best[best.baseline_correct].length, "corrected": best[~best.baseline_correct].length}
    edges = [edge - 0.5 for edge in range(int(best.length.min()), int(best.length.max()) + 2)] if len(best) else 10
    axes.hist(list(parts.values()), bins=edges, stacked=True, label=list(parts))
    axes.axvline(float(rows.num_layers.iloc[0]), color="black", linestyle=":", label="the model's depth")
    axes.set(title="Length of the best programs", xlabel="layers run", ylabel="questions")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()

    layers = Figure(figsize=(7, 3.5), layout="constrained")
    axes = layers.subplots()
    skipped, repeated = layer_use(rows)
    positions = range(len(skipped))
    axes.bar(positions, [-100 * part for part in skipped], label="skipped")
    axes.bar(positions, [100 * part for part in repeated], label="repeated")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}")
    axes.set(title="Layers that the best programs skip (down) and repeat (up)", xlabel="layer", ylabel="% of them")
    axes.legend()

    files = []
    for name, figure in (("lengths", lengths), ("layers", layers)):
        file = folder / f"{name}.png"
        FigureCanvasAgg(figure).print_png(file)  # type: ignore[no-untyped-call]
        files.append(file)
    return files

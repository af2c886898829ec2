"""A summary of a path data set, with the layers that its best programs skip and repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.report import png
from pipeline.report.analysis import PathStudy, analyse, count_layers
from pipeline.report.charts import share
from pipeline.shards.reader import read_improvements, read_paths, read_settings
from pipeline.shards.run_config import KEEP_WORDS
from pipeline.storage import AnyPath, is_there, uploaded

if TYPE_CHECKING:
    import pandas as pd

_SPARKS = " ▁▂▃▄▅▆▇█"


def inspect_run(run: AnyPath, console: Console, *, plots: AnyPath | None = None) -> None:
    """Print a summary of a run; draw its figures too where a folder for them is given.

    Raises:
        UserError: The folder is no run, or a shard is damaged.
    """
    settings = read_settings(run)
    rows = read_paths(run)
    state = "complete" if is_there(run / "_SUCCESS") else "incomplete"
    searched = escape(f"{settings.get('task')} with {settings.get('model.name')}")
    console.print(
        f"[bold]{escape(str(run))}[/]: {searched}, {state}; "
        f"{rows.example_id.nunique()} questions, {len(rows)} programs kept",
        highlight=False,
    )
    if rows.empty:
        console.print("Nothing is committed yet.")
        return
    console.print(_outcomes(rows))
    if "correct_as_asked" in rows:
        _print_renderings(rows, settings, console)
    best = rows[rows.is_best].program.map(tuple)
    console.print(f"{best.nunique()} different programs are the best of {len(best)} questions.", highlight=False)
    console.print(_layers(rows))
    if plots is not None:
        sections = analyse(PathStudy.of(rows, settings, read_improvements(run)))
        charts = [chart for section in sections for chart in section.charts]
        with uploaded(plots) as folder:
            names = [file.name for file in png.write(charts, folder)]
        for name in names:
            console.print(f"wrote {plots / name}", highlight=False, markup=False)


def _print_renderings(rows: pd.DataFrame, settings: dict[str, Any], console: Console) -> None:
    """Print how many answers are right as asked, and how many under all renderings."""
    untouched = rows.program.map(tuple).map(lambda program: program == tuple(range(rows.num_layers.iloc[0])))
    base, others = rows[untouched], rows[~untouched]
    lines = [
        f"Each question was asked in {settings['permutations']} ways (fewer where it has fewer options): the untouched "
        f"model is right on {base.correct_as_asked.sum()} as they stand and on {base.correct.sum()} in every way."
    ]
    # Where only right programs are kept, every program but the identity is right under all renderings.
    if settings.get("keep") in KEEP_WORDS:
        wrong = base.example_id[~base.correct_as_asked]
        found = others[others.example_id.isin(wrong)].groupby("example_id")[["correct_as_asked", "correct"]].any().sum()
        lines.append(
            f"Of {len(wrong)} that it gets wrong as they stand, a program corrects {found.correct_as_asked} so, and "
            f"{found.correct} in every way."
        )
    console.print(" ".join(lines), highlight=False, markup=False)


def _outcomes(rows: pd.DataFrame) -> Table:
    """For each task and verdict on the base model: how many questions are solved, and by how short programs."""
    table = Table(title="Questions", title_justify="left")
    for column in ("task", "base model", "questions", "solved within budget", "shorter", "mean saved layers"):
        table.add_column(column, justify="left" if column in ("task", "base model") else "right")
    for task, of_task in rows.groupby("task"):
        for right, part in of_task.groupby("baseline_correct"):
            questions, best = part.example_id.nunique(), part[part.is_best]
            table.add_row(
                escape(str(task)),
                "right" if right else "wrong",
                str(questions),
                f"{len(best)} ({share(len(best), questions)})",
                f"{(best.saved_layers > 0).sum()} ({share(int((best.saved_layers > 0).sum()), questions)})",
                f"{best.saved_layers.mean():.2f}" if len(best) else "-",
            )
    return table


def _layers(rows: pd.DataFrame) -> Table:
    depth = int(rows.num_layers.iloc[0])
    counts = count_layers(rows[rows.is_best].program, depth)
    number = max(len(counts), 1)
    table = Table(title=f"Layers 0 to {depth - 1} in the best programs", title_justify="left")
    for column in ("", "by layer", "most often"):
        table.add_column(column)
    for name, use in (("skipped", (counts == 0).sum(0) / number), ("repeated", (counts > 1).sum(0) / number)):
        peak = max(max(use), 1e-9)
        bars = "".join(_SPARKS[round(part / peak * (len(_SPARKS) - 1))] for part in use)
        most = sorted(range(len(use)), key=lambda layer: -use[layer])[:3]
        named = ", ".join(f"{layer} ({100 * use[layer]:.0f} %)" for layer in most if use[layer] > 0)
        table.add_row(name, bars, named or "none")
    return table

"""A summary of a path data set, with the layers that its best programs skip and repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.report import png
from pipeline.report.analysis import PathStudy, analyse, count_layers, count_reasons
from pipeline.report.charts import percent_of
from pipeline.report.examples import ShownExample, shown_examples
from pipeline.shards.reader import read_improvements, read_paths, read_settings
from pipeline.shards.run_config import KEEP_WORDS
from pipeline.shards.run_state import RunState
from pipeline.storage import AnyPath, uploaded

if TYPE_CHECKING:
    import pandas as pd

_SPARKS = " ▁▂▃▄▅▆▇█"


def inspect_run(run: AnyPath, console: Console, *, plots: AnyPath | None = None, num_examples: int = 0) -> None:
    """Print a summary of a run; draw its figures too where a folder for them is given.

    Args:
        run: The run folder.
        console: Where the summary goes.
        plots: Folder of the figures; None for none.
        num_examples: Examples of each of the four groups that are shown.

    Raises:
        UserError: The folder is no run, or a shard is damaged.
    """
    settings = read_settings(run)
    rows = read_paths(run)
    state = RunState.read(run)
    searched = escape(f"{settings.get('task')} with {settings.get('model.name')}")
    console.print(
        f"[bold]{escape(str(run))}[/]: {searched}, {'complete' if state.complete else 'incomplete'}; "
        f"{rows.example_id.nunique()} examples, {len(rows)} programs kept",
        highlight=False,
    )
    if not state.complete:
        console.print(state.describe(), highlight=False, markup=False, soft_wrap=True)
    if rows.empty:
        console.print("Nothing is committed yet.")
        return
    console.print(_outcomes(rows))
    if "correct_as_asked" in rows:
        _print_renderings(rows, settings, console)
    _print_reasons(rows, console)
    best = rows[rows.is_best].program.map(tuple)
    console.print(f"{best.nunique()} different programs are the best of {len(best)} examples.", highlight=False)
    console.print(_layers(rows))
    if not num_examples and plots is None:
        return
    study = PathStudy.of(rows, settings, read_improvements(run))
    for group, shown in shown_examples(study, num_examples).items():
        _print_examples(group, shown, console)
    if plots is not None:
        sections = analyse(study)
        charts = [chart for section in sections for chart in section.charts]
        with uploaded(plots) as folder:
            names = [file.name for file in png.write(charts, folder)]
        for name in names:
            console.print(f"wrote {plots / name}", highlight=False, markup=False)


def _print_examples(group: str, shown: Sequence[ShownExample], console: Console) -> None:
    """Print examples of one of the four groups."""
    for number, one in enumerate(shown):
        if number == 0:
            console.print(f"\n[bold]{escape(group)}[/]", highlight=False)
        lines = [
            one.example_id,
            f"  prompt      {one.prompt}",
            f"  expected    {one.expected}",
            f"  base model  {one.base_response}",
        ]
        if one.program is not None:
            lines.append(f"  program     {one.program}  {one.response}")
        console.print("\n".join(lines), highlight=False, markup=False)


def _print_renderings(rows: pd.DataFrame, settings: dict[str, Any], console: Console) -> None:
    """Print the numbers of answers that are right in the first rendering, and in all renderings."""
    is_identity = rows.program.map(tuple).map(lambda program: program == tuple(range(rows.num_layers.iloc[0])))
    base, others = rows[is_identity], rows[~is_identity]
    lines = [
        f"Each example has {settings['permutations']} renderings (fewer where it has fewer options). The base model is "
        f"right on {base.correct_as_asked.sum()} in the first rendering and on {base.correct.sum()} in all of them."
    ]
    # Where only right programs are kept, every program but the identity is right under all renderings.
    if settings.get("keep") in KEEP_WORDS:
        wrong = base.example_id[~base.correct_as_asked]
        found = others[others.example_id.isin(wrong)].groupby("example_id")[["correct_as_asked", "correct"]].any().sum()
        lines.append(
            f"Of {len(wrong)} that it gets wrong in the first rendering, a program corrects {found.correct_as_asked} "
            f"there, and {found.correct} in all renderings."
        )
    console.print(" ".join(lines), highlight=False, markup=False)


def _print_reasons(rows: pd.DataFrame, console: Console) -> None:
    """Print why answers are right or wrong, where the run says so."""
    counted = count_reasons(rows)
    if not counted:
        return
    table = Table(title="Why answers are right (ended) or wrong", title_justify="left")
    for column in ("reason", "base model", "other kept programs"):
        table.add_column(column, justify="left" if column == "reason" else "right")
    for name, base, others in counted:
        table.add_row(name, str(base), str(others))
    console.print(table)


def _outcomes(rows: pd.DataFrame) -> Table:
    """The solved examples and the saved layers, by task and by the base model's correctness."""
    table = Table(title="Examples", title_justify="left")
    for column in ("task", "base model", "examples", "solved within budget", "shorter", "mean saved layers"):
        table.add_column(column, justify="left" if column in ("task", "base model") else "right")
    for task, of_task in rows.groupby("task"):
        for right, part in of_task.groupby("baseline_correct"):
            examples, best = part.example_id.nunique(), part[part.is_best]
            table.add_row(
                escape(str(task)),
                "right" if right else "wrong",
                str(examples),
                f"{len(best)} ({percent_of(len(best), examples)})",
                f"{(best.saved_layers > 0).sum()} ({percent_of(int((best.saved_layers > 0).sum()), examples)})",
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

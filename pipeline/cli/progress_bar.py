"""Showing a run: a live line on a terminal, a plain line every few seconds elsewhere, and a summary."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from pipeline.cli.console import Console
from pipeline.report.charts import percent_of

if TYPE_CHECKING:
    from pipeline.shards.progress import Progress

PLAIN_LINE_SECONDS = 10.0
SLOW_LOADING_SECONDS = 60.0


class Reporter(AbstractContextManager["Reporter"]):
    """Shows a run's progress on a console; use as a context manager and call it with the progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._last_line = float("-inf")
        self._task_id: TaskID | None = None
        if console.is_terminal:
            self._bar = RichProgress(
                TextColumn("[bold]search"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                console=console,
            )

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
            self._task_id = self._bar.add_task("search", total=None, facts="starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and self._task_id is not None:
            if self._bar.tasks[0].total is None:
                self._bar.remove_task(self._task_id)  # nothing was shown yet
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Show the progress of the run."""
        if self._bar is not None and self._task_id is not None:
            self._bar.update(
                self._task_id, total=progress.num_examples, completed=progress.done, facts=describe(progress)
            )
        elif time.monotonic() - self._last_line >= PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.say(f"{progress.done}/{progress.num_examples} examples, {describe(progress)}")


class StepReporter(AbstractContextManager["StepReporter"]):
    """Shows steps that are done one after the other: a bar each on a terminal, lines elsewhere.

    Call it with the name of a step, how much of the step is done, and of how much.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()
        self._bar: RichProgress | None = None
        if console.is_terminal:
            self._bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> StepReporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show the progress of a step."""
        if self._bar is not None:
            if step not in self._tasks:
                self._tasks[step] = self._bar.add_task(escape(step), total=total)
            # A step may come twice, with more to do the second time.
            self._bar.update(self._tasks[step], completed=done, total=total)
        elif done == total or time.monotonic() - self._last_line >= PLAIN_LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.say(f"{step}: {done}/{total}")


def describe(progress: Progress) -> str:
    """The progress on one line: rate, results so far, remaining time, failures."""
    if progress.actors_ready == 0 and progress.done < progress.num_examples:
        waiting = f"loading the model ({progress.seconds:.0f} s)"
        # A model may take long to load; an actor that the cluster has no room for waits without end.
        return waiting + (", or waiting for room on the cluster" if progress.seconds > SLOW_LOADING_SECONDS else "")
    rate = progress.programs_run / max(progress.seconds, 1e-9)
    facts = ["calibrating"] if progress.calibrating else []
    facts += [
        f"{rate:.1f} programs/s",
        f"{progress.shorter} shorter",
        f"{progress.corrected} corrected",
        f"{time_left(progress)} left",
    ]
    if progress.failed_examples:
        facts.append(f"{progress.failed_examples} set aside")
    if progress.actors_lost:
        facts.append(f"{progress.actors_lost} actors lost")
    return ", ".join(facts)


def time_left(progress: Progress) -> str:
    """The remaining time at the rate so far, if every search uses all of its simulations."""
    if progress.programs_run == 0:
        return "?"
    examples = progress.num_examples - progress.resumed_examples - progress.failed_examples
    programs = max(examples * progress.programs_an_example - progress.programs_run, 0)
    seconds = round(progress.seconds / progress.programs_run * programs)
    return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


def summarize(progress: Progress, console: Console) -> None:
    """The closing table: what was found, over everything that is committed."""
    done, right = progress.done, progress.baseline_correct
    wrong = done - right
    table = Table(title="What was found", title_justify="left")
    table.add_column("")
    table.add_column("examples", justify="right")
    table.add_column("share", justify="right")
    table.add_row("searched", str(done), "")
    table.add_row("the base model is right", str(right), percent_of(right, done))
    table.add_row("  and a shorter program too", str(progress.shorter), percent_of(progress.shorter, right))
    table.add_row("the base model is wrong", str(wrong), percent_of(wrong, done))
    table.add_row("  and a program corrects it", str(progress.corrected), percent_of(progress.corrected, wrong))
    console.print(table)
    evaluations = sum(record.evaluations for record in progress.committed)
    layers = sum(record.layer_executions for record in progress.committed)
    console.say(f"{evaluations:,} programs run, {layers:,} layer executions; {progress.seconds:.0f} s of search.")

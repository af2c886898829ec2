"""The command ``drllm-pipeline search``: its options, its progress and its exit code."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.exit_codes import EXIT_INCOMPLETE
from pipeline.cli.lazy_group import called_command
from pipeline.cli.request_options import RequestCommand, filled, request_options
from pipeline.errors import StoppedError
from pipeline.search.action_spaces import ACTION_SPACES
from pipeline.search.config import PRESET_NAMES, SearchConfig, search_preset
from pipeline.tasks import TASKS
from pipeline.workflows.search_request import SearchRequest

_NAME = "drllm-pipeline"
#: Fields of the request that the help lists first.
_WHAT_IS_SEARCHED = ("model", "task", "data", "out", "limit", "split", "task_options")


def _task_help() -> str:
    width = max(len(name) for name in TASKS)
    return "\n".join(f"  {name:<{width}}  {task.summary}" for name, task in TASKS.items())


@click.command(
    cls=RequestCommand,
    short_help="Search a program for every example.",
    help=f"""Search a layer program for every example, into a folder of Parquet shards.

Each example gets its own tree search: programs that skip or repeat layers of the base model are run on it, and the
right ones within the budget are kept, shortest first. A prior is fitted to the first examples and guides the search of
all others (--calibration). Committed examples are kept when the run is interrupted; the same command resumes it, with
any number of actors.

\b
Tasks:
{_task_help()}

\b
Examples:
  drllm-pipeline search --model smollm2 --task arithmetic --limit 64 --out runs/sums
  drllm-pipeline search --model meta-llama/Llama-3.2-3B-Instruct --task arc \\
      --data allenai/ai2_arc:ARC-Easy --limit 1000 --out runs/arc
  drllm-pipeline search --model ./my-model --task jsonl --data examples.jsonl --chat --out runs/mine

Exit code: 0 for a complete run, 1 for an incomplete one, 2 for a wrong call.
""",
)
@request_options(
    SearchRequest,
    *_WHAT_IS_SEARCHED,
    task={"help": "One of the tasks above, or your own: my_package.my_module:TASK."},
)
@request_options(
    SearchConfig,
    "budget",
    "max_length",
    "simulations",
    simulations={"default": None, "unset": "50; cola: 200"},
)
@click.option(
    "--action-space",
    metavar="NAME",
    default="drllm",
    show_default=True,
    help="".join(f"{space.name}: {space.help}. " for space in ACTION_SPACES.values())
    + "Or your own: my_package.my_module:SPACE.",
)
@click.option(
    "--preset",
    type=click.Choice(PRESET_NAMES),
    default="default",
    show_default=True,
    help="published: the papers' constants, Dr.LLM's early stop included. default: the constants that find more.",
)
@request_options(SearchRequest, without=(*_WHAT_IS_SEARCHED, "search"))
def search(
    budget: float,
    max_length: float,
    simulations: int | None,
    action_space: str,
    preset: str,
    calibration: int | None,
    **options: Any,
) -> None:
    """Search a layer program for every example."""
    chosen = search_preset(preset, action_space)
    request = filled(
        SearchRequest,
        options,
        search=replace(
            chosen,
            budget=budget,
            max_length=max_length,
            simulations=chosen.simulations if simulations is None else simulations,
        ),
        # The published searches use no prior.
        calibration=0 if calibration is None and preset == "published" else calibration,
    )
    sys.exit(run_and_show(request))


def run_and_show(request: SearchRequest) -> int:
    """Run a search with its progress and its summary; returns the exit code."""
    from pipeline.cli.progress_bar import Reporter, summarize
    from pipeline.report.preview import preview_lines
    from pipeline.storage import StorageError
    from pipeline.workflows.run_search import run_search

    console = Console()
    try:
        with Reporter(console) as reporter:
            progress = run_search(
                request,
                command=called_command(),
                show=reporter,
                announce=console.say,
                preview=lambda answers: console.say(
                    "\n".join(preview_lines(answers, task=request.task, options=request.task_options))
                ),
            )
    except KeyboardInterrupt:
        # A store that is away is not asked.
        begun = not isinstance(request.out, Path) or (request.out / "run.json").exists()
        console.say(
            f"Stopped. What is committed stays in {request.out}; run the same command again to go on."
            if begun
            else f"Stopped before {request.out} was begun; nothing was written."
        )
        return EXIT_INCOMPLETE
    except (StoppedError, StorageError) as error:
        remedy = f"{error.remedy} and " if isinstance(error, StorageError) and error.remedy else ""
        console.say(
            f"Stopped: {error}. What is committed stays in {request.out}; {remedy}run the same command again to go on.",
        )
        return EXIT_INCOMPLETE
    summarize(progress, console)
    if not progress.complete:
        console.say(
            f"Incomplete: {progress.failed_examples} examples were set aside; {request.out / 'failed'} names them and "
            "their errors. Those of groups that failed are tried again by the same command.",
        )
        return EXIT_INCOMPLETE
    console.say(
        f"Shards: {request.out / 'paths'}\n"
        f'Load:   pandas.read_parquet("{request.out / "paths"}")\n'
        f"Look:   {_own_name()} inspect {request.out}",
    )
    return 0


def _own_name() -> str:
    """The name by which the same shell can call this command again."""
    called = sys.argv[0]
    return called if Path(called).name == _NAME and shutil.which(_NAME) != called else _NAME

"""``drllm-pipeline search``."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from pipeline.cli.exit_codes import EXIT_INCOMPLETE
from pipeline.cli.options import LOCATION, resource_options, resources_of
from pipeline.errors import StoppedError, UserError
from pipeline.search.action_spaces import ACTION_SPACES
from pipeline.search.config import PRESET_NAMES, search_preset
from pipeline.shards.run_config import DEFAULT_CACHE_GIB, DEFAULT_STALL_SECONDS
from pipeline.storage import AnyPath
from pipeline.tasks import TASKS

_NAME = "drllm-pipeline"


def _task_help() -> str:
    width = max(len(name) for name in TASKS)
    return "\n".join(f"  {name:<{width}}  {task.summary}" for name, task in TASKS.items())


@click.command(
    short_help="Search a program for every question.",
    help=f"""Search a layer program for every question, into a folder of Parquet shards.

Each question gets its own tree search: programs that skip or repeat layers of the frozen model are
run on it, and the right ones within the budget are kept, shortest first. What the first questions show
about the model's layers guides the search of all others (--calibration). Whatever is committed is
kept when the run is interrupted; the same command goes on where it stopped, with any number of
actors.

\b
Tasks:
{_task_help()}

\b
Examples:
  drllm-pipeline search --model smollm2 --task arithmetic --limit 64 --out runs/sums
  drllm-pipeline search --model meta-llama/Llama-3.2-3B-Instruct --task arc \\
      --data allenai/ai2_arc:ARC-Easy --limit 1000 --out runs/arc
  drllm-pipeline search --model ./my-model --task jsonl --data questions.jsonl --out runs/mine

Exit code: 0 for a complete run, 1 for an incomplete one, 2 for a wrong call.
""",
)
@click.option("--model", required=True, help="Hub id, local folder, .gguf file, or 'smollm2' (embedded).")
@click.option("--task", required=True, metavar="NAME", help="One of the tasks above.")
@click.option("--data", help="jsonl, csv or parquet file or folder, its URL, or a hub data set (owner/name[:config]).")
@click.option("--out", required=True, type=LOCATION, help="Run folder, or its URL; resumed if it exists.")
@click.option("--budget", default=1.0, show_default=True, help="Longest program kept, as a fraction of the depth.")
@click.option(
    "--max-length", default=2.0, show_default=True, help="Longest program tried at all, as a fraction of the depth."
)
@click.option("--simulations", type=int, help="Programs tried per question.  [default: 50; cola: 200]")
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
    help="published: the papers' constants, Dr.LLM's early stop included. default: what finds more.",
)
@click.option("--limit", type=int, help="Only the first N questions.")
@click.option("--split", default="train", show_default=True, help="Split of a hub data set or of 'arithmetic'.")
@click.option("--seed", default=0, show_default=True, help="Seed of made questions and of every search.")
@resource_options
@click.option(
    "--keep",
    default="4",
    show_default=True,
    metavar="K|pareto|all",
    help="Kept per question beside the identity: K right programs; or those, right or wrong, that none as short or "
    "shorter beats; or all that were tried.",
)
@click.option(
    "--group-size", default=8, show_default=True, help="Questions batched, handed out and committed together."
)
@click.option(
    "--leaves",
    type=int,
    help="Programs of a question tried at once: more fill batches, fewer learn sooner.  [default: the task's own]",
)
@click.option(
    "--calibration",
    type=int,
    metavar="N",
    help="The first N questions are searched unaided and teach the search of the others; 0 for none.  "
    "[default: 32; published: 0]",
)
@click.option(
    "--prior",
    type=LOCATION,
    metavar="RUN|FILE",
    help="What another run of the same model learnt, instead of a calibration.",
)
@click.option(
    "--reverify",
    is_flag=True,
    help="Keep only programs whose verdicts stock models confirm: wanted in bfloat16, where rounding turns some.",
)
@click.option(
    "--permutations",
    default=1,
    show_default=True,
    metavar="K",
    help="Ask each question in K ways, its options rotated or in other words: only a program that is right in all of "
    "them is right. A random guess among four options stands K = 4 once in 256 times.",
)
@click.option(
    "--cache-gib",
    default=DEFAULT_CACHE_GIB,
    show_default=True,
    help="Memory of an actor, beside the model's, for layers that programs share.",
)
@click.option("--max-new-tokens", type=int, help="Most tokens of a generated answer.  [default: the task's own]")
@click.option(
    "--stall-seconds",
    default=DEFAULT_STALL_SECONDS,
    show_default=True,
    help="An actor that runs no program for so long is taken for stuck, and replaced.",
)
def search(
    model: str,
    task: str,
    data: str | None,
    out: AnyPath,
    budget: float,
    max_length: float,
    simulations: int | None,
    action_space: str,
    preset: str,
    limit: int | None,
    split: str,
    seed: int,
    keep: str,
    group_size: int,
    leaves: int | None,
    calibration: int | None,
    prior: AnyPath | None,
    reverify: bool,
    permutations: int,
    cache_gib: float,
    max_new_tokens: int | None,
    stall_seconds: float,
    **resources: Any,
) -> None:
    """Search a layer program for every question."""
    from pipeline.workflows.run_search import SearchRequest

    try:
        chosen = search_preset(preset, action_space)
        settings = replace(
            chosen,
            budget=budget,
            max_length=max_length,
            simulations=chosen.simulations if simulations is None else simulations,
        )
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from None
    request = SearchRequest(
        model=model,
        task=task,
        out=out,
        data=data,
        split=split,
        limit=limit,
        max_new_tokens=max_new_tokens,
        search=settings,
        seed=seed,
        keep=_number_or_word(keep),
        group_size=group_size,
        leaves=leaves,
        # The published searches learn nothing from other questions.
        calibration=0 if calibration is None and preset == "published" else calibration,
        prior=prior,
        reverify=reverify,
        permutations=permutations,
        cache_gib=cache_gib,
        stall_seconds=stall_seconds,
        resources=resources_of(resources),
    )
    sys.exit(run_and_show(request))


def run_and_show(request: Any) -> int:
    """Run a search with its progress and its summary; returns the exit code."""
    from pipeline.cli.progress_bar import Reporter, summarize
    from pipeline.storage import StorageError
    from pipeline.workflows.run_search import run_search

    console = Console(soft_wrap=True)
    try:
        with Reporter(console) as reporter:
            progress = run_search(
                request, show=reporter, announce=lambda line: console.print(line, highlight=False, markup=False)
            )
    except KeyboardInterrupt:
        console.print(
            f"Stopped. What is committed stays in {request.out}; run the same command again to go on.",
            highlight=False,
            markup=False,
        )
        return EXIT_INCOMPLETE
    except (StoppedError, StorageError) as error:
        remedy = f"{error.remedy} and " if isinstance(error, StorageError) and error.remedy else ""
        console.print(
            f"Stopped: {error}. What is committed stays in {request.out}; {remedy}run the same command again to go on.",
            highlight=False,
            markup=False,
        )
        return EXIT_INCOMPLETE
    summarize(progress, console)
    if not progress.complete:
        console.print(
            f"Incomplete: {progress.failed_examples} questions were set aside; {request.out / 'failed'} names them and "
            "their errors. Those of groups that failed are tried again by the same command.",
            highlight=False,
            markup=False,
        )
        return EXIT_INCOMPLETE
    console.print(
        f"Shards: {request.out / 'paths'}\n"
        f'Load:   pandas.read_parquet("{request.out / "paths"}")\n'
        f"Look:   {_own_name()} inspect {request.out}",
        highlight=False,
        markup=False,
    )
    return 0


def _number_or_word(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _own_name() -> str:
    """How this command can be called again from the same shell."""
    called = sys.argv[0]
    return called if Path(called).name == _NAME and shutil.which(_NAME) != called else _NAME

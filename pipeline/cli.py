"""``drllm-pipeline``: the command line."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from pipeline import __version__
from pipeline.actions import ACTION_SPACES
from pipeline.adaptation.cli import adapt
from pipeline.config import DEFAULT_CACHE_GIB, DEFAULT_STALL_SECONDS
from pipeline.errors import StoppedError, UserError
from pipeline.model_source import DTYPES
from pipeline.options import LOCATION, resource_options, resources_of
from pipeline.search import PRESETS, SearchConfig
from pipeline.storage import AnyPath
from pipeline.tasks import TASKS
from pipeline.verification.cli import verify
from router import cli as router_commands
from router.probing.cli import probe

_NAME = "drllm-pipeline"
EXIT_INCOMPLETE = 1
EXIT_WRONG_CALL = 2


class _Commands(click.Group):
    """Turns a user's mistake into its message and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_WRONG_CALL)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find better ways through a frozen language model: which layers to skip, run or repeat.

\b
First steps:
  drllm-pipeline demo                 search, train and evaluate with an embedded model, in minutes
  drllm-pipeline inspect runs/demo    what it found
  drllm-pipeline search --help        your own model and questions
""",
)
@click.version_option(__version__)
def main() -> None:
    """The group of all commands."""


def _task_help() -> str:
    width = max(len(name) for name in TASKS)
    return "\n".join(f"  {name:<{width}}  {task.summary}" for name, task in TASKS.items())


@main.command(
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
    type=click.Choice(sorted(ACTION_SPACES)),
    default="drllm",
    show_default=True,
    help="drllm: skip 1-2 layers, repeat one. cola: skip or repeat blocks of 1-4, nested.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
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
    from pipeline.run import SearchRequest

    try:
        chosen = PRESETS[preset][action_space]
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
    sys.exit(_search(request))


def _search(request: Any) -> int:
    """Run a search with its progress and its summary; returns the exit code."""
    from pipeline.reporting import Reporter, summarize
    from pipeline.run import run_search
    from pipeline.storage import StoreError

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
    except (StoppedError, StoreError) as error:
        remedy = f"{error.remedy} and " if isinstance(error, StoreError) and error.remedy else ""
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


@main.command(short_help="Say what a path data set holds.")
@click.argument("run", type=LOCATION)
@click.option("--plots", type=LOCATION, help="Also write the report's pictures to this folder.")
def inspect(run: AnyPath, plots: AnyPath | None) -> None:
    """Say what a path data set holds: a summary, and which layers its programs skip and repeat."""
    from pipeline.inspection import inspect_run

    inspect_run(run, Console(soft_wrap=True), plots=plots)


@main.command(
    short_help="What a run shows, as a page with figures.",
    help="""Write what a run shows as one HTML page, which needs no network, and its figures as PNG.

How many right answers have a shorter program and wrong ones a correcting one; how long the best programs are, and which
layers they skip and repeat; what skipping, repeating and both bring; accuracy against budget, as an oracle has it; how
many programs cover how many questions; and what is found after how many programs. A search with --keep all tells most.

\b
Example:
  drllm-pipeline report runs/arc --out arc.html      pictures go to the folder arc/
""",
)
@click.argument("run", type=LOCATION)
@click.option("--out", type=LOCATION, help="The page.  [default: report.html in the run folder]")
def report(run: AnyPath, out: AnyPath | None) -> None:
    """Write what a run shows as a page."""
    from pipeline.report.write import write_report

    written = write_report(run, out)
    Console(soft_wrap=True).print(
        f"Page:     {written.page}\nPictures: {written.pictures[0].parent}", highlight=False, markup=False
    )


@main.command(
    short_help="Path data sets from and to the formats of the field.",
    help="""Convert path data sets: SRC in one format to DST in another.

\b
Formats:
  run    a run folder of ours
  polar  merged_mcts_samples.json of PoLar and RE-PoLar, also compressed (.gz)
  drllm  the results JSON of Dr.LLM's data generation (to read only)

Every program keeps its verdict, right or wrong; what cannot be taken over is counted by its reason. PoLar's format has
no field for what a program answered; margins are kept in a field of their own. Neither PoLar's nor Dr.LLM's
files say how deep the model is: give --model, or --num-layers where its last layers may be in no program. To train on
a converted run, name its model and precision, and choose --labels consensus or shortest.

\b
Examples:
  drllm-pipeline convert --from run --to polar runs/arc merged_mcts_samples.json
  drllm-pipeline convert --from polar --to run merged_mcts_samples.json runs/polar \\
      --model Qwen/Qwen3-8B --dtype bfloat16
""",
)
@click.option("--from", "source_format", required=True, metavar="run|polar|drllm", help="Format of SRC.")
@click.option("--to", "target_format", required=True, metavar="run|polar", help="Format of DST.")
@click.option("--model", help="The model that was searched: hub id, folder, .gguf file or 'smollm2'.")
@click.option(
    "--dtype",
    type=click.Choice([name for name in DTYPES if name != "auto"]),
    help="The precision in which it was searched, where SRC does not say.",
)
@click.option("--num-layers", type=int, help="Its depth, where SRC does not say.  [default: the deepest layer in SRC]")
@click.option("--task", help="The questions' task, where SRC does not say.")
@click.argument("source", metavar="SRC", type=LOCATION)
@click.argument("target", metavar="DST", type=LOCATION)
def convert(source: AnyPath, target: AnyPath, **options: Any) -> None:
    """Convert path data sets."""
    from pipeline.convert import ConvertRequest
    from pipeline.convert import convert as run

    console = Console(soft_wrap=True)
    found = run(
        ConvertRequest(source=source, target=target, **options),
        announce=lambda line: console.print(line, highlight=False, markup=False),
    )
    left_out = "".join(f"\n  left out, {reason}: {number}" for reason, number in sorted(found.left_out.items()))
    console.print(
        f"{found.questions} questions with {found.programs} programs for {found.num_layers} layers: {target}{left_out}",
        highlight=False,
        markup=False,
    )


@main.command(short_help="Search, train and evaluate with the embedded model, in minutes.")
@click.option("--out", type=LOCATION, default=Path("runs/demo"), show_default=True, help="Run folder.")
@click.option("--router", type=LOCATION, default=Path("routers/demo"), show_default=True, help="Router folder.")
@click.option("--limit", default=48, show_default=True, help="Questions to search.")
@click.option("--held-out", default=24, show_default=True, help="Questions to evaluate on.")
@click.pass_context
def demo(context: click.Context, out: AnyPath, router: AnyPath, limit: int, held_out: int) -> None:
    """Search arithmetic questions with the embedded SmolLM2, train a router on them, and judge it; on this machine.

    So few questions teach a router little: the demo shows the way, not how far it leads.
    """
    from pipeline.run import SearchRequest

    step = click.style if sys.stdout.isatty() else (lambda text, **_: text)
    click.echo(step("1. Search: a program for each of some questions", bold=True))
    searched = _search(
        SearchRequest(model="smollm2", task="arithmetic", out=out, limit=limit, keep=64, search=SearchConfig())
    )
    if searched != 0:
        sys.exit(searched)
    click.echo(step("\n2. Train: routers that choose programs", bold=True))
    # Few questions tell little of what others should expect: a layer has to be dear for any to be left out.
    context.invoke(router_commands.train, runs=(out,), more_runs=(), out=router, layer_price=0.05)
    click.echo(step("\n3. Evaluate: on questions that nobody has seen", bold=True))
    context.invoke(
        router_commands.evaluate, router=router, task="arithmetic", limit=held_out, curve="0.9,0.8", budget=1.0
    )
    click.echo(step("\n4. Use it", bold=True))
    context.invoke(
        router_commands.generate, router=str(router), prompt="7 + 5 = 12\n6 + 3 =", budget=1.0, max_new_tokens=3
    )
    click.echo(f"\n{limit} questions teach a router little; the README says what 1000 do.")


for _command in (
    adapt,
    verify,
    router_commands.train,
    router_commands.evaluate,
    router_commands.generate,
    router_commands.lm_eval,
    router_commands.export,
    probe,
):
    main.add_command(_command)

if __name__ == "__main__":
    main()

"""The commands that read path data sets: ``inspect``, ``report`` and ``convert``."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.options import LOCATION
from pipeline.cli.request_options import RequestCommand, filled, request_options
from pipeline.formats.convert_request import ConvertRequest
from pipeline.storage import AnyPath


@click.command(short_help="Summarize a path data set.")
@click.argument("run", type=LOCATION)
@click.option("--plots", type=LOCATION, help="Also write the report's pictures to this folder.")
@click.option(
    "--examples",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Also show N examples of each group (shortened, already optimal, corrected, unsolved) with their answers.",
)
def inspect(run: AnyPath, plots: AnyPath | None, examples: int) -> None:
    """Summarize a path data set: its results, and the layers that its programs skip and repeat."""
    from pipeline.report.summary import inspect_run

    inspect_run(run, Console(), plots=plots, num_examples=examples)


@click.command(
    short_help="Write a run's figures as a page.",
    help="""Write a run's figures as one HTML page, which needs no network, and as PNG.

The page shows how many right answers have a shorter program, and how many wrong ones a correcting one; the lengths of
the best programs, and the layers that they skip and repeat; the gain of skipping, repeating and both; the accuracy of
an oracle by budget; how many examples a set of programs covers; and what was found after how many programs. A search
with --keep all gives the most complete page.

\b
Example:
  drllm-pipeline report runs/arc --out arc.html      pictures go to the folder arc/
""",
)
@click.argument("run", type=LOCATION)
@click.option("--out", type=LOCATION, help="The page.  [default: report.html in the run folder]")
def report(run: AnyPath, out: AnyPath | None) -> None:
    """Write a run's figures as a page."""
    from pipeline.report.write_report import write_report

    written = write_report(run, out)
    Console().say(f"Page:     {written.page}\nPictures: {written.pictures[0].parent}")


@click.command(
    cls=RequestCommand,
    short_help="Path data sets from and to the formats of the field.",
    help="""Convert path data sets: SRC in one format to DST in another.

\b
Formats:
  run    a run folder of ours
  polar  merged_mcts_samples.json of PoLar and RE-PoLar, also compressed (.gz)
  drllm  the results JSON of Dr.LLM's data generation (to read only)

Every program keeps its result, right or wrong. Programs and examples that cannot be taken over are counted by reason.
PoLar's format has no field for a program's answer; margins are kept in a field of their own. Neither PoLar's nor
Dr.LLM's files hold the model's depth: give --model, or --num-layers where its last layers may be in no program. To
train on a converted run, name its model and precision, and choose --labels consensus or shortest.

\b
Examples:
  drllm-pipeline convert --from run --to polar runs/arc merged_mcts_samples.json
  drllm-pipeline convert --from polar --to run merged_mcts_samples.json runs/polar \\
      --model Qwen/Qwen3-8B --dtype bfloat16
""",
)
@request_options(ConvertRequest, without=("source", "target"))
@click.argument("source", metavar="SRC", type=LOCATION)
@click.argument("target", metavar="DST", type=LOCATION)
def convert(**options: Any) -> None:
    """Convert path data sets."""
    request = filled(ConvertRequest, options)
    from pipeline.formats.convert import convert as run

    console = Console()
    found = run(request, announce=console.say)
    left_out = "".join(f"\n  left out, {reason}: {number}" for reason, number in sorted(found.left_out.items()))
    console.say(
        f"{found.examples} examples with {found.programs} programs for {found.num_layers} layers: "
        f"{request.target}{left_out}"
    )

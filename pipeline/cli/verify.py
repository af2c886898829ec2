"""The command ``drllm-pipeline verify``: labels of a run, replayed with stock models."""

from __future__ import annotations

import sys
from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.exit_codes import EXIT_INCOMPLETE
from pipeline.cli.options import LOCATION, interruptible
from pipeline.cli.progress_bar import StepReporter
from pipeline.cli.request_options import RequestCommand, filled, request_options
from pipeline.workflows.verify_request import VerifyRequest


@click.command(
    cls=RequestCommand,
    short_help="Replay a run's labels with stock models.",
    help="""Replay the kept programs of a run, and report labels that differ.

Each program is built as a stock transformers model, which reads each prompt alone; the search batched prompts, and ran
the prefixes that programs share once. In float32 no label may differ. In bfloat16 rounding can flip labels with small
margins. A label that differs with the same answer shows that the scoring has changed since the run was made. The exit
code is 1 if more labels differ than --tolerance allows.

\b
Examples:
  drllm-pipeline verify runs/demo
  drllm-pipeline verify runs/arc --fraction 0.05 --tolerance 0.01
""",
)
@click.argument("run", type=LOCATION)
@request_options(VerifyRequest, without=("run",))
@click.option(
    "--show", default=20, show_default=True, type=click.IntRange(min=0), help="Differing rows that are listed."
)
def verify(show: int, **options: Any) -> None:
    """Replay a run's labels."""
    request = filled(VerifyRequest, options)
    from pipeline.workflows.verify import verify as replay

    console = Console()
    with interruptible(console, "Stopped. A replay writes nothing: the same command begins anew."):
        with StepReporter(console) as steps:
            found = replay(request, announce=console.say, show=steps)
        for one in found.differences[:show]:
            verdicts = ("right", "wrong") if one.correct else ("wrong", "right")
            where = "in the run's first rendering" if one.as_asked else "in the run"
            console.say(
                f"  {one.example_id}, layers {one.program}: {verdicts[0]} {where} (margin {one.margin:.3g}), "
                f"{verdicts[1]} replayed ({one.replayed_margin:.3g})"
                + (f"; the same answer, scored today as: {one.reason}" if one.same_answer else "")
            )
        if len(found.differences) > show:
            console.say(f"  … and {len(found.differences) - show} more; --show lists them")
        console.say(
            f"{len(found.differences)} of {found.replayed} replayed labels differ "
            f"({100 * found.differing_share:.2f} %), in {found.dtype}."
        )
        if found.rescored:
            reasons = ", ".join(f"{number} {reason}" for reason, number in found.rescored.most_common())
            console.say(
                f"{found.rescored.total()} of them are of the same answer, which today's scoring judges otherwise than "
                f"the run's: {reasons}."
            )
        if found.differing_share > request.tolerance:
            sys.exit(EXIT_INCOMPLETE)

"""``drllm-pipeline verify``."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console

from pipeline.cli.options import LOCATION, interruptible, resource_options, resources_of
from pipeline.cli.progress_bar import StepReporter
from pipeline.storage import AnyPath


@click.command(
    short_help="Replay a run's labels with stock models.",
    help="""Replay the kept programs of a run, and report labels that differ.

Each program is built as a stock transformers model, which reads each question alone; the search had read many at once,
and shared what programs have in common. In float32 no label may differ. In bfloat16 rounding turns those whose margin
is small. Exit code 1 where more differ than --tolerance allows.

\b
Examples:
  drllm-pipeline verify runs/demo
  drllm-pipeline verify runs/arc --fraction 0.05 --tolerance 0.01
""",
)
@click.argument("run", type=LOCATION)
@click.option("--fraction", default=1.0, show_default=True, help="Share of the rows that are replayed.")
@click.option("--tolerance", default=0.0, show_default=True, help="Share of those that may differ.")
@click.option("--base", help="Hub id, folder or .gguf file of the searched model, if it lies elsewhere now.")
@click.option(
    "--show", default=20, show_default=True, type=click.IntRange(min=0), help="Differing rows that are listed."
)
@resource_options
def verify(run: AnyPath, fraction: float, tolerance: float, base: str | None, show: int, **options: Any) -> None:
    """Replay a run's labels."""
    from pipeline.workflows.verify import VerifyRequest
    from pipeline.workflows.verify import verify as replay

    request = VerifyRequest(run=run, fraction=fraction, tolerance=tolerance, base=base, resources=resources_of(options))
    console = Console(soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    with interruptible(console, "Stopped. A replay writes nothing: the same command begins anew."):
        with StepReporter(console) as steps:
            found = replay(request, announce=say, show=steps)
        for one in found.differences[:show]:
            verdicts = ("right", "wrong") if one.correct else ("wrong", "right")
            where = "as asked in the run" if one.as_asked else "in the run"
            say(
                f"  {one.example_id}, layers {one.program}: {verdicts[0]} {where} (margin {one.margin:.3g}), "
                f"{verdicts[1]} replayed ({one.replayed_margin:.3g})"
            )
        if len(found.differences) > show:
            say(f"  … and {len(found.differences) - show} more; --show lists them")
        say(
            f"{len(found.differences)} of {found.replayed} replayed labels differ ({100 * found.share:.2f} %), in "
            f"{found.dtype}."
        )
        if found.share > tolerance:
            sys.exit(1)

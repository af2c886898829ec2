"""The command ``drllm-pipeline evaluate``: a router beside other methods, on held-out examples."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.options import interruptible
from pipeline.cli.progress_bar import StepReporter
from pipeline.cli.request_options import RequestCommand, filled, request_options
from router.evaluation.evaluate_request import EvaluateRequest


@click.command(
    cls=RequestCommand,
    short_help="Evaluate a router, or programs, on held-out examples.",
    help="""Evaluate a router on held-out examples, beside what it must be compared with.

The base model, the routed one, the best single program of the training examples, random programs of the same lengths,
and the search itself, which knows the answers: all answer the same examples, greedily. Examples that the routers were
trained on are left out. Results go to evaluation.json and evaluation.png.

With --program, or with --menu, single programs answer all examples, beside the base model.

\b
Examples:
  drllm-pipeline evaluate --router routers/sums --task arithmetic --limit 500
  drllm-pipeline evaluate --router routers/arc --task arc --data allenai/ai2_arc:ARC-Easy --budget 0.9
  drllm-pipeline evaluate --router routers/sums --against routers/sums-early-exit --task arithmetic --limit 500
  drllm-pipeline evaluate --menu menus/sums --task arithmetic --limit 2000
  drllm-pipeline evaluate --program 0-11,13-29 --model smollm2 --task arithmetic --limit 500
""",
)
@request_options(EvaluateRequest, match={"unset": "normalized"})
def evaluate(**options: Any) -> None:
    """Evaluate a router."""
    request = filled(EvaluateRequest, options)
    from router.artifact.folder import EVALUATION_FILE, EVALUATION_PICTURE
    from router.evaluation.evaluate import evaluate as evaluate_router
    from router.evaluation.evaluate import results_folder, write
    from router.evaluation.evaluate_programs import evaluate_programs
    from router.evaluation.table import show_evaluation

    console = Console()
    with interruptible(console, "Stopped; no evaluation was written."):
        with StepReporter(console) as steps:
            run = evaluate_programs if request.router is None else evaluate_router
            evaluation = run(request, announce=console.say, show=steps)
        show_evaluation(evaluation, console)
        if request.router is None and request.out is None:
            return
        out = results_folder(request)
        write(evaluation, out)
        console.say(f"Results: {out / EVALUATION_FILE}\nPicture: {out / EVALUATION_PICTURE}")

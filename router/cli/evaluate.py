"""``drllm-pipeline evaluate``."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from pipeline.cli.options import LOCATION, fractions, interruptible, resource_options, resources_of
from pipeline.cli.progress_bar import StepReporter
from pipeline.storage import AnyPath


@click.command(
    short_help="Judge a router on questions that it never saw.",
    help="""Judge a router on held-out questions, beside what it must be compared with.

The base model, the routed one, the best single program of the training questions, random programs of the
same lengths, and the search itself, which knows the answers: all answer the same questions, greedily. Questions
that the routers were trained on are left out. Results go to evaluation.json and evaluation.png.

\b
Examples:
  drllm-pipeline evaluate --router routers/sums --task arithmetic --limit 500
  drllm-pipeline evaluate --router routers/arc --task arc --data allenai/ai2_arc:ARC-Easy --budget 0.9
  drllm-pipeline evaluate --router routers/sums --against routers/sums-probe --task arithmetic --limit 500
""",
)
@click.option("--router", required=True, type=LOCATION, help="Router folder, or hub id.")
@click.option(
    "--against",
    multiple=True,
    type=LOCATION,
    help="Another router of the same base, to be judged on the same questions; may be repeated.",
)
@click.option("--task", required=True, metavar="NAME", help="As for search.")
@click.option("--data", help="As for search.")
@click.option("--split", default="test", show_default=True, help="Split of a hub data set or of 'arithmetic'.")
@click.option("--limit", type=int, help="Only the first N questions.")
@click.option("--budget", type=float, help="Most layers of any sequence, as a fraction of the depth.")
@click.option("--average", type=float, help="Layers on average, as a fraction of the depth.")
@click.option("--curve", default="0.95,0.9,0.85,0.8,0.7", show_default=True, help="Budgets of the curve; '' for none.")
@click.option("--simulations", default=50, show_default=True, help="Of the search that is the ceiling; 0 for none.")
@click.option("--runs", multiple=True, type=LOCATION, help="Training runs, if not where they were.")
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--max-new-tokens", type=int, help="Most tokens of a generated answer.  [default: the task's own]")
@click.option("--seed", default=0, show_default=True, help="Of made questions, random programs and the search.")
@click.option("--out", type=LOCATION, help="Folder of the results.  [default: the router's]")
@resource_options
def evaluate(
    router: AnyPath, against: tuple[AnyPath, ...], task: str, curve: str, runs: tuple[AnyPath, ...], **options: Any
) -> None:
    """Judge a router."""
    from router.evaluation.evaluate import evaluate as run
    from router.evaluation.evaluate import results_folder, write
    from router.evaluation.evaluate_request import EvaluateRequest
    from router.evaluation.results import PICTURE_FILE, RESULTS_FILE
    from router.evaluation.table import show_evaluation

    request = EvaluateRequest(
        router=router,
        against=against,
        task=task,
        curve=fractions("--curve", curve),
        runs=runs or None,
        resources=resources_of(options),
        **{
            name: options[name]
            for name in (
                "data",
                "split",
                "limit",
                "seed",
                "max_new_tokens",
                "budget",
                "average",
                "simulations",
                "base",
                "out",
            )
        },
    )
    console = Console(soft_wrap=True)
    with interruptible(console, "Stopped; no evaluation was written."):
        with StepReporter(console) as steps:
            evaluation = run(
                request, announce=lambda line: console.print(line, highlight=False, markup=False), show=steps
            )
        show_evaluation(evaluation, console)
        out = results_folder(request)
        write(evaluation, out)
        console.print(f"Results: {out / RESULTS_FILE}\nPicture: {out / PICTURE_FILE}", highlight=False, markup=False)

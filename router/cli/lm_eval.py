"""The command ``drllm-pipeline lm-eval``: lm-evaluation-harness on a routed model."""

from __future__ import annotations

from typing import Any

import click

from pipeline.errors import UserError


@click.command(
    name="lm-eval",
    short_help="Run lm-evaluation-harness on a routed model.",
    context_settings={"ignore_unknown_options": True},
    help="""Run lm-evaluation-harness on a routed model.

What follows -- goes to lm-eval's own command line. The prompt of each request decides its program; the results' config
says how many layers ran. Needs the harness: pip install '.[lm-eval]' in a clone.

\b
Examples:
  drllm-pipeline lm-eval --router routers/arc --budget 0.8 -- --tasks arc_easy --limit 200
  drllm-pipeline lm-eval --router routers/sums -- --tasks my_task --include_path tasks --output_path results
""",
)
@click.option("--router", required=True, help="Router folder, or hub id.")
@click.option("--budget", type=float, help="Most layers of any sequence, as a fraction of the depth.")
@click.option("--average", type=float, help="Layers on average, as a fraction of the depth.")
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lm_eval(arguments: tuple[str, ...], **model_args: Any) -> None:
    """Run lm-evaluation-harness."""
    from router.routed.causal_lm import limit_of
    from router.routed.checkpoint import Router

    router = Router.load(model_args["router"])
    limit_of(router.head, model_args["budget"])
    try:
        from router.routed.lm_eval import run_harness
    except ImportError as error:
        raise UserError(f"lm-eval needs its package: pip install '.[lm-eval]' in a clone ({error})") from None
    run_harness(arguments, model_args=model_args)

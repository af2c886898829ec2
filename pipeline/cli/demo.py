"""The command ``drllm-pipeline demo``: search, train and evaluate with the embedded model."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli.options import LOCATION
from pipeline.cli.search import run_and_show
from pipeline.search.config import SearchConfig
from pipeline.storage import AnyPath
from pipeline.workflows.search_request import SearchRequest


@click.command(short_help="Search, train and evaluate with the embedded model, in minutes.")
@click.option("--out", type=LOCATION, default=Path("runs/demo"), show_default=True, help="Run folder.")
@click.option("--router", type=LOCATION, default=Path("routers/demo"), show_default=True, help="Router folder.")
@click.option("--limit", default=48, show_default=True, help="Examples to search.")
@click.option("--held-out", default=24, show_default=True, help="Examples to evaluate on.")
@click.pass_context
def demo(context: click.Context, out: AnyPath, router: AnyPath, limit: int, held_out: int) -> None:
    """Search arithmetic examples with the embedded SmolLM2, train a router on them, and evaluate it; on this machine.

    So few examples are too few for a good router: the demo shows the steps, not the results.
    """
    step = click.style if sys.stdout.isatty() else (lambda text, **_: text)
    click.echo(step("1. Search: a program for each of some examples", bold=True))
    searched = run_and_show(
        SearchRequest(model="smollm2", task="arithmetic", out=out, limit=limit, keep=64, search=SearchConfig())
    )
    if searched != 0:
        sys.exit(searched)
    click.echo(step("\n2. Train: routers that choose programs", bold=True))
    # Labels expected from few examples are uncertain: without a high price no layer would be left out.
    context.invoke(_command(context, "train"), data=(out,), more_runs=(), out=router, layer_price=0.05)
    click.echo(step("\n3. Evaluate: on examples that were not trained on", bold=True))
    context.invoke(
        _command(context, "evaluate"), router=router, task="arithmetic", limit=held_out, curve="0.9,0.8", budget=1.0
    )
    click.echo(step("\n4. Use it", bold=True))
    context.invoke(
        _command(context, "generate"), router=str(router), prompt="7 + 5 = 12\n6 + 3 =", budget=1.0, max_new_tokens=3
    )
    click.echo(f"\n{limit} examples are too few for a good router; docs/results.md has the results of 1000.")


def _command(context: click.Context, name: str) -> click.Command:
    """Another command of the same group, by its name: this package does not import ``router``, which builds on it."""
    assert context.parent is not None
    group = context.parent.command
    assert isinstance(group, click.Group)
    command = group.get_command(context, name)
    assert command is not None
    return command

"""The command ``drllm-pipeline demo``: search, train and evaluate with the embedded model."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from pipeline.cli.options import LOCATION
from pipeline.cli.search import run_and_show
from pipeline.search.config import SearchConfig
from pipeline.storage import AnyPath
from pipeline.workflows.search_request import SearchRequest

#: The embedded model.
MODEL = "smollm2"
_ROUTER_HELP = "Router folder; a router that it holds is replaced."


@click.command(short_help="Search, train and evaluate with the embedded model, in minutes.")
@click.option("--out", type=LOCATION, default=Path("runs/demo"), show_default=True, help="Run folder.")
@click.option("--router", type=LOCATION, default=Path("routers/demo"), show_default=True, help=_ROUTER_HELP)
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
        SearchRequest(model=MODEL, task="arithmetic", out=out, limit=limit, keep=64, search=SearchConfig())
    )
    if searched != 0:
        sys.exit(searched)
    click.echo(step("\n2. Train: routers that choose programs", bold=True))
    # Labels expected from few examples are uncertain: without a high price no layer would be left out.
    _run(context, "train", {"--data": out, "--out": router, "--layer-price": 0.05}, "--overwrite")
    click.echo(step("\n3. Evaluate: on examples that were not trained on", bold=True))
    held_out_examples = {"--task": "arithmetic", "--limit": held_out}
    _run(context, "evaluate", {"--router": router, **held_out_examples, "--curve": "0.9,0.8", "--budget": 1.0})
    click.echo(step("\n4. Use it", bold=True))
    question = {"--prompt": "7 + 5 = 12\n6 + 3 =", "--max-new-tokens": 3}
    _run(context, "generate", {"--router": router, **question, "--budget": 1.0})
    click.echo(f"\n{limit} examples are too few for a good router; docs/results.md has the results of 1000.")


def _run(context: click.Context, name: str, options: Mapping[str, object], *flags: str) -> None:
    """Run another command of the same group with options as a user would type them.

    It is found by its name: this package does not import ``router``, which builds on it.
    """
    assert context.parent is not None
    group = context.parent.command
    assert isinstance(group, click.Group)
    command = group.get_command(context.parent, name)
    assert command is not None
    words = [*(str(word) for option in options.items() for word in option), *flags]
    with command.make_context(name, words, parent=context.parent) as called:
        command.invoke(called)

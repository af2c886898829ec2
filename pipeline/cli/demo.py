"""The command ``drllm-pipeline demo``: every step with the embedded model, and what comes of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from pipeline.cli.options import LOCATION
from pipeline.cli.search import run_and_show
from pipeline.search.config import SearchConfig
from pipeline.storage import AnyPath
from pipeline.tasks import TaskOptions
from pipeline.workflows.search_request import SearchRequest

#: The embedded model.
MODEL = "smollm2"
#: The kinds of examples that have two likely answers: there a few hundred examples show which program suits which.
KINDS = ("larger", "comparisons", "rounded-tens", "rounded-hundreds")
#: Shorter programs are right on too few of these examples, and would fill so small a menu.
MIN_BUDGET = 0.9
#: Programs race on the other examples; a router is trained on all.
HELD_OUT = 0.6
#: A layer that changes no answer is not worth its time.
LAYER_PRICE = 0.01
_ROUTER_HELP = "Router folder; a router that it holds is replaced."


@click.command(short_help="Search, train and evaluate with the embedded model, in minutes.")
@click.option("--out", type=LOCATION, default=Path("runs/demo"), show_default=True, help="Run folder.")
@click.option("--menu", type=LOCATION, default=Path("menus/demo"), show_default=True, help="Menu folder.")
@click.option("--router", type=LOCATION, default=Path("routers/demo"), show_default=True, help=_ROUTER_HELP)
@click.option("--limit", default=8, show_default=True, help="Examples to search.")
@click.option("--menu-limit", default=500, show_default=True, help="Examples of the menu.")
@click.option("--evaluations", default=10_000, show_default=True, help="Programs times examples of the race, about.")
@click.option("--held-out", default=400, show_default=True, help="Examples to evaluate on.")
@click.pass_context
def demo(
    context: click.Context,
    out: AnyPath,
    menu: AnyPath,
    router: AnyPath,
    limit: int,
    menu_limit: int,
    evaluations: int,
    held_out: int,
) -> None:
    """Search arithmetic examples with the embedded SmolLM2, find programs that are good on many, and train a router.

    All of it runs on this machine. A search finds a program for one example. A menu's programs, and a router that
    chooses among them, are judged on examples that none of them has seen.
    """
    step = click.style if sys.stdout.isatty() else (lambda text, **_: text)
    kinds = ",".join(KINDS)
    click.echo(step("1. Search: a program for each of some examples", bold=True))
    searched = run_and_show(
        SearchRequest(
            model=MODEL,
            task="arithmetic",
            task_options=TaskOptions(kinds=kinds),
            out=out,
            limit=limit,
            keep=64,
            search=SearchConfig(),
        )
    )
    if searched != 0:
        sys.exit(searched)
    examples = {"--task": "arithmetic", "--kinds": kinds}
    click.echo(step("\n2. Menu: programs that are good on many examples", bold=True))
    race = {
        "--model": MODEL,
        "--limit": menu_limit,
        "--size": 10,
        "--held-out": HELD_OUT,
        "--min-budget": MIN_BUDGET,
        "--evaluations": evaluations,
    }
    _run(context, "menu", {**examples, **race, "--out": menu})
    click.echo(step("\n3. Train: a router that chooses among them", bold=True))
    _run(context, "train", {"--menu": menu, "--out": router, "--layer-price": LAYER_PRICE}, "--overwrite")
    click.echo(step("\n4. Use it", bold=True))
    question = {"--prompt": "The larger of 12 and 31 is 31\nThe larger of 47 and 26 is", "--max-new-tokens": 3}
    _run(context, "generate", {"--router": router, **question})
    click.echo(step("\n5. Evaluate: the router on examples of the split that nothing has seen", bold=True))
    judged = {"--router": router, **examples, "--limit": held_out, "--simulations": 0, "--curve": ""}
    _run(context, "evaluate", judged)


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

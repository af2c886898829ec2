"""The command ``drllm-pipeline menu``: the programs that the prompts of a task share."""

from __future__ import annotations

from typing import Any

import click
from rich import box
from rich.table import Table

from pipeline.cli.console import Console
from pipeline.cli.options import interruptible
from pipeline.cli.progress_bar import StepReporter
from pipeline.cli.request_options import RequestCommand, filled, request_options
from router.menu.menu_request import MenuRequest


@click.command(
    cls=RequestCommand,
    short_help="Find the programs that are good on many examples.",
    help="""Find the few layer programs that are good on many examples of a task.

All single edits of the identity program (blocks of layers that are skipped, or run again) race by successive halving:
all on a few examples, the better half on more. The best are combined and race on. The menu holds the identity program,
the best program of each length, and programs from which some examples gain. Its figures are measured on held-out
examples, and corrected for the number of programs.

Every outcome is kept in MENU/matrix: an interrupted race goes on where it stopped, and routers are trained on it.

\b
Examples:
  drllm-pipeline menu --model smollm2 --task arithmetic --limit 1000 --size 12 --out menus/sums
  drllm-pipeline menu --data runs/arc --budget 1.0 --out menus/arc
  drllm-pipeline menu --model org/model --task arc --data allenai/ai2_arc:ARC-Easy --out menus/arc
""",
)
@request_options(MenuRequest)
def menu(**options: Any) -> None:
    """Find the programs that are good on many examples."""
    request = filled(MenuRequest, options)
    from router.menu.card import TABLE_COLUMNS, table_row
    from router.menu.menu import PICTURE_FILE
    from router.training.build_menu import build_menu

    console = Console()
    with interruptible(console, "Stopped. Outcomes that were computed are kept; run the same command again."):
        with StepReporter(console) as steps:
            found = build_menu(request, announce=console.say, show=steps)
        table = Table(
            title=f"Menu on {found.settings.num_held_out} held-out examples",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in TABLE_COLUMNS:
            table.add_column(column, justify="left" if column == "program" else "right", no_wrap=column != "program")
        for one in found.programs:
            table.add_row(*table_row(one))
        console.print(table)
        console.say(f"Menu:    {request.out}\nPicture: {request.out / PICTURE_FILE}")

"""The command ``drllm-pipeline export``: one program as a stock checkpoint."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.options import LOCATION

_BUDGET_HELP = "Most layers of the program for --prompt or --runs, as a fraction of the depth.  [--runs: the runs' own]"


@click.command(
    short_help="Write one program as a stock checkpoint.",
    help="""Write one layer program as a stock transformers checkpoint, which needs none of our code.

--best takes one program for all prompts. With --router it is the one that the router's evaluation chose: the best of
the programs that the training runs found most often, run on training examples. With --runs no model is run: it is the
program within --budget that is right on most examples of the runs, by the rows that they keep. A program that is right
on an example and not among the kept ones (search --keep) does not count there: search with --keep all for exact
numbers of the programs that were tried.

\b
Examples:
  drllm-pipeline export --model smollm2 --program 0-9,12-29 --out models/short
  drllm-pipeline export --router routers/sums --best --out models/best
  drllm-pipeline export --runs runs/sums --best --budget 0.9 --out models/best-of-run
  drllm-pipeline export --router routers/sums --prompt "2 + 2 =" --out models/for-this
""",
)
@click.option(
    "--model", help="Hub id, local folder, .gguf file, or 'smollm2'.  [default: that of the router or the runs]"
)
@click.option("--program", help="The layers in order, as 0-5,5-9,12-29.")
@click.option("--best", is_flag=True, help="The best single program, by an evaluation of --router or by --runs.")
@click.option("--router", type=LOCATION, help="Router folder.")
@click.option("--runs", type=LOCATION, multiple=True, help="Run folder; may be repeated. For --best.")
@click.option("--prompt", help="The program that the router chooses for this prompt.")
@click.option("--budget", type=float, help=_BUDGET_HELP)
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.option("--out", required=True, type=LOCATION, help="Folder of the checkpoint.")
def export(**options: Any) -> None:
    """Write one program as a stock checkpoint."""
    from router.serving.export import export_program

    console = Console()
    program = export_program(**options, announce=console.say)
    console.say(
        f"{len(program)} of {program.num_layers} layers ({program}): {options['out']}\n"
        f"Load: transformers.AutoModelForCausalLM.from_pretrained({str(options['out'])!r})"
    )

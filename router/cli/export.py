"""The command ``drllm-pipeline export``: one program as a stock checkpoint."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.options import LOCATION


@click.command(
    short_help="Write one program as a stock checkpoint.",
    help="""Write one layer program as a stock transformers checkpoint, which needs none of our code.

\b
Examples:
  drllm-pipeline export --model smollm2 --program 0-9,12-29 --out models/short
  drllm-pipeline export --router routers/sums --best --out models/best
  drllm-pipeline export --router routers/sums --prompt "2 + 2 =" --out models/for-this
""",
)
@click.option("--model", help="Hub id, local folder, .gguf file, or 'smollm2'.  [default: the router's base]")
@click.option("--program", help="The layers in order, as 0-5,5-9,12-29.")
@click.option("--best", is_flag=True, help="The best single program that an evaluation of --router chose.")
@click.option("--router", type=LOCATION, help="Router folder.")
@click.option("--prompt", help="The program that the router chooses for this prompt.")
@click.option("--budget", type=float, help="Most layers of the program for --prompt, as a fraction of the depth.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.option("--out", required=True, type=LOCATION, help="Folder of the checkpoint.")
def export(**options: Any) -> None:
    """Write one program as a stock checkpoint."""
    from router.serving.export import export_program

    program = export_program(**options)
    Console().say(
        f"{len(program)} of {program.num_layers} layers ({program}): {options['out']}\n"
        f"Load: transformers.AutoModelForCausalLM.from_pretrained({str(options['out'])!r})"
    )

"""The command ``drllm-pipeline generate``: the answer of a routed model to a prompt."""

from __future__ import annotations

from typing import Any

import click


@click.command(
    short_help="Answer a prompt with a routed model.",
    help="""Answer a prompt with a routed model, and say which layers ran.

\b
Example:
  drllm-pipeline generate --router routers/sums --prompt "7 + 5 =" --budget 0.9
""",
)
@click.option("--router", required=True, help="Router folder, or hub id.")
@click.option("--prompt", required=True, help="The text to go on with, as it is.")
@click.option("--budget", type=float, help="Most layers, as a fraction of the depth.")
@click.option("--average", type=float, help="Layers on average, as a fraction of the depth.")
@click.option("--max-new-tokens", default=16, show_default=True, help="Most tokens of the answer.")
@click.option("--no-fallback", is_flag=True, help="Route, also where one program for all prompts did better.")
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where it runs.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
def generate(router: str, prompt: str, max_new_tokens: int, no_fallback: bool, **options: Any) -> None:
    """Answer a prompt."""
    import transformers

    from router.routed.causal_lm import RoutedCausalLM

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    lm = RoutedCausalLM.from_pretrained(router, fallback=not no_fallback, **options)
    [answer] = lm.generate([prompt], max_new_tokens=max_new_tokens)
    [program] = lm.last_programs
    click.echo(prompt + answer)
    click.echo(f"{len(program)} of {program.num_layers} layers ran: {program}")
    if lm.runs_fallback:
        click.echo(
            "All prompts run this program: the router was not better on held-out examples (--no-fallback routes)."
        )

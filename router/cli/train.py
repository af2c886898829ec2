"""``drllm-pipeline train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from pipeline.cli.options import LOCATION, fractions, interruptible, resource_options, resources_of
from pipeline.cli.progress_bar import StepReporter
from pipeline.errors import UserError
from pipeline.storage import AnyPath

if TYPE_CHECKING:
    from router.heads.head_request import HeadRequest


@click.command(
    short_help="Train a router on path data sets.",
    help="""Train a router on the path data sets that `search` wrote.

Each layer gets a small network that reads the prompt as it enters that layer and says whether the layer is
skipped, run, or run twice (--head per-layer). Or one classifier reads the hidden states behind the first layers, and
predicts whether a short program suffices, whether the base model is needed, or whether a correction is (--head
early-exit); each class has one program.

On Ray, programs are run on all questions to label them (--labels), and prompts are read. All of it is kept
(--features): a second training with the same labels runs nothing.

\b
Examples:
  drllm-pipeline train --data runs/sums --out routers/sums
  drllm-pipeline train --data runs/arc --data runs/gsm8k --out routers/mixed --epochs 40
  drllm-pipeline train --data runs/sums --out routers/sums-exit --head early-exit --short 0.9

A search for training should keep more programs than the default four (search --keep 64): there are then more
that many questions share, which routers can learn.
""",
)
@click.option("--data", "runs", required=True, multiple=True, type=LOCATION, help="Run folder; may be repeated.")
@click.argument("more_runs", nargs=-1, type=LOCATION)
@click.option("--out", required=True, type=LOCATION, help="Router folder.")
@click.option(
    "--head",
    default="per-layer",
    show_default=True,
    metavar="per-layer|early-exit",
    help="A router for every layer, or one classifier behind the first layers.",
)
@click.option(
    "--labels",
    default="expected",
    show_default=True,
    metavar="expected|consensus|shortest",
    help="An example's label. expected: of a candidate set of programs, which are run on all examples, the one with "
    "the highest predicted probability of being right. consensus: of its own right programs the one most like other "
    "examples'. shortest: the shortest of them, as in the paper. For --head early-exit, expected or shortest.",
)
@click.option(
    "--layer-price",
    default=0.01,
    show_default=True,
    help="Price of a layer in right answers an example (0.01 is one percentage point): the higher, the shorter the "
    "labels.",
)
@click.option(
    "--consensus-price", default=0.01, show_default=True, help="Price of a layer in nats, for --labels consensus."
)
@click.option("--epochs", default=25, show_default=True, help="Most passes over the training questions.")
@click.option("--batch-size", default=16, show_default=True, help="Questions of a step.")
@click.option("--lr", default=1e-3, show_default=True, help="Learning rate of AdamW.")
@click.option("--weight-decay", default=0.01, show_default=True, help="Weight decay of AdamW.")
@click.option("--warmup-steps", default=500, show_default=True, help="At most a tenth of all steps.")
@click.option(
    "--gamma",
    default=2.0,
    show_default=True,
    help="Exponent of the focal loss: how little easy decisions count; with 0 all count alike.",
)
@click.option(
    "--beta",
    default=0.999,
    show_default=True,
    help="Class weights by effective number: 0 for none; the nearer to 1, the more rare classes count.",
)
@click.option("--patience", default=6, show_default=True, help="Epochs without a better macro-F1 until training ends.")
@click.option("--windows", default=8, show_default=True, help="Windows that a prompt is cut into.")
@click.option("--width", default=128, show_default=True, help="Hidden units of a router.")
@click.option("--early", type=int, help="Of --head early-exit: layers that always run.  [default: a quarter of them]")
@click.option(
    "--short",
    default="0.9",
    show_default=True,
    help="Of --head early-exit: most layers of the short program, as a fraction of the depth; several by commas.",
)
@click.option(
    "--aggregator",
    default="gate",
    show_default=True,
    metavar="pooling|gate|mha",
    help="Of --head early-exit; see probe train.",
)
@click.option("--held-out", default=0.1, show_default=True, help="Share of the questions that training stops by.")
@click.option("--seed", default=0, show_default=True, help="Seed of the weights, the order and the held-out examples.")
@click.option(
    "--features", type=click.Path(path_type=Path), help="Where prompts' features are kept.  [default: the user's cache]"
)
@click.option("--base", help="Hub id, folder or .gguf file of the searched model, if it lies elsewhere now.")
@click.option("--wandb", metavar="PROJECT", help="Also report to Weights & Biases.")
@resource_options
def train(runs: tuple[AnyPath, ...], more_runs: tuple[AnyPath, ...], out: AnyPath, labels: str, **options: Any) -> None:
    """Train a router."""
    from router.training.train import train as run
    from router.training.train_request import TrainRequest

    _check_prices(labels)
    request = TrainRequest(
        data=(*runs, *more_runs),
        out=out,
        base=options["base"],
        labels=labels,
        layer_price=options["layer_price"],
        consensus_price=options["consensus_price"],
        held_out=options["held_out"],
        head=_head_request(options),
        features=options["features"],
        resources=resources_of(options),
        wandb=options["wandb"],
    )
    console = Console(soft_wrap=True)

    def on_epoch(record: dict[str, float]) -> None:
        layers = f"  layers {record['layers']:.1f}" if "layers" in record else ""
        console.print(
            f"epoch {record['epoch']:3.0f}  loss {record['train_loss']:.4f}, held out {record['loss']:.4f}  "
            f"macro-F1 {record['macro_f1']:.3f}{layers}  {record['seconds']:.1f} s",
            highlight=False,
        )

    with interruptible(
        console, "Stopped. Features and verdicts that were computed are kept; run the same command again."
    ):
        with StepReporter(console) as steps:
            trained = run(
                request,
                announce=lambda line: console.print(line, highlight=False, markup=False),
                show=steps,
                on_epoch=on_epoch,
            )
        by_class = ", ".join(f"{name} {score:.3f}" for name, score in trained.f1.items())
        console.print(
            f"Kept epoch {trained.best['epoch']:.0f}: held-out macro-F1 {trained.best['macro_f1']:.3f} ({by_class}).\n"
            f"Router:  {out}\n"
            f"Picture: {out / 'training.png'}\n"
            f"Use:     router.RoutedCausalLM.from_pretrained({str(out)!r})",
            highlight=False,
            markup=False,
        )


def _is_given(name: str) -> bool:
    """Whether an option is on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _check_prices(labels: str) -> None:
    """Refuse a price in the unit of other labels.

    Raises:
        UserError: The price is not the one of these labels.
    """
    other = "layer_price" if labels == "consensus" else "consensus_price"
    if _is_given(other):
        fitting = "--consensus-price (in nats)" if labels == "consensus" else "--layer-price (in right answers)"
        raise UserError(f"--{other.replace('_', '-')} has no effect on --labels {labels}; give {fitting}")


def _head_request(options: dict[str, Any]) -> HeadRequest:
    """The request of the kind of router that the options name.

    Raises:
        UserError: There is no such kind, an option is another kind's, or an option is out of its range.
    """
    from router.heads.registry import HEAD_KINDS, find_kind

    try:
        kind = find_kind(options["head"])
    except ValueError as error:
        raise UserError(f"--head: {error}") from None
    for other in HEAD_KINDS.values():
        for name in sorted(other.request.own_options - kind.request.own_options):
            if _is_given(name):
                raise UserError(f"--{name.replace('_', '-')} goes with --head {other.name}, not with {kind.name}")
    try:
        request: HeadRequest = kind.request.from_options({**options, "short": fractions("--short", options["short"])})
    except UserError:
        raise
    except ValueError as error:
        said = str(error)
        raise UserError(said if said.startswith("unknown") else f"--{said.replace('_', '-')}") from None
    return request

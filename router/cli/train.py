"""``drllm-pipeline train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from pipeline.cli.options import LOCATION, fractions, interruptible, resource_options, resources_of
from pipeline.cli.progress_bar import StepReporter
from pipeline.errors import UserError
from pipeline.storage import AnyPath


@click.command(
    short_help="Train a router on path data sets.",
    help="""Train a router on the path data sets that `search` wrote.

Each layer gets a small network that reads the prompt as it enters that layer and says whether the layer is
skipped, run, or run twice (--head per-layer). Or one probe reads what the first layers make of the prompt, and says
whether a short program will do, whether the untouched model should go on, or whether a correction is needed (--head
probe); each class has one program.

On Ray, programs are run on all questions to label them (--labels), and prompts are read. All of it is kept
(--features): a second training with the same labels runs nothing.

\b
Examples:
  drllm-pipeline train --data runs/sums --out routers/sums
  drllm-pipeline train --data runs/arc --data runs/gsm8k --out routers/mixed --epochs 40
  drllm-pipeline train --data runs/sums --out routers/sums-probe --head probe --short 0.9

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
    metavar="per-layer|probe",
    help="A router for every layer, or one probe behind the first layers.",
)
@click.option(
    "--labels",
    default="expected",
    show_default=True,
    metavar="expected|consensus|shortest",
    help="A question's label. expected: of a menu of programs, which are run on all questions, the one it should "
    "expect most of, as far as questions like it tell. consensus: of its own right programs the one most like other "
    "questions'. shortest: the shortest of them, as in the paper. Of --head probe's classes, expected or shortest.",
)
@click.option(
    "--layer-price",
    default=0.01,
    show_default=True,
    help="What a layer costs a label: the more, the shorter the labels. In right answers a question for "
    "--labels expected (0.01 is one percentage point), in nats for consensus.",
)
@click.option("--epochs", default=25, show_default=True, help="Most passes over the training questions.")
@click.option("--batch-size", default=16, show_default=True, help="Questions of a step.")
@click.option("--lr", default=1e-3, show_default=True, help="Learning rate of AdamW.")
@click.option("--weight-decay", default=0.01, show_default=True, help="Of AdamW.")
@click.option("--warmup-steps", default=500, show_default=True, help="At most a tenth of all steps.")
@click.option(
    "--gamma", default=2.0, show_default=True, help="Of the focal loss: how little easy decisions count; 0 for alike."
)
@click.option(
    "--beta",
    default=0.999,
    show_default=True,
    help="Of the class weights: 0 for none, towards 1 for rare classes more.",
)
@click.option("--patience", default=6, show_default=True, help="Epochs without a better macro-F1 until training ends.")
@click.option("--windows", default=8, show_default=True, help="Windows that a prompt is cut into.")
@click.option("--width", default=128, show_default=True, help="Hidden units of a router.")
@click.option("--early", type=int, help="Of --head probe: layers that always run.  [default: a quarter of them]")
@click.option(
    "--short",
    default="0.9",
    show_default=True,
    help="Of --head probe: most layers of the short program, as a fraction of the depth; several with commas between.",
)
@click.option(
    "--aggregator",
    default="gate",
    show_default=True,
    metavar="pooling|gate|mha",
    help="Of --head probe; see probe train.",
)
@click.option("--held-out", default=0.1, show_default=True, help="Share of the questions that training stops by.")
@click.option("--seed", default=0, show_default=True, help="Of the weights, the order and the held-out questions.")
@click.option(
    "--features", type=click.Path(path_type=Path), help="Where prompts' features are kept.  [default: the user's cache]"
)
@click.option("--base", help="Hub id, folder or .gguf file of the searched model, if it lies elsewhere now.")
@click.option("--wandb", metavar="PROJECT", help="Also report to Weights & Biases.")
@resource_options
def train(runs: tuple[AnyPath, ...], more_runs: tuple[AnyPath, ...], out: AnyPath, labels: str, **options: Any) -> None:
    """Train per-layer routers."""
    from router.training.train import TrainRequest
    from router.training.train import train as run

    request = TrainRequest(
        data=(*runs, *more_runs),
        out=out,
        base=options["base"],
        labels=labels,
        layer_price=options["layer_price"],
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
            learnt = run(
                request,
                announce=lambda line: console.print(line, highlight=False, markup=False),
                show=steps,
                on_epoch=on_epoch,
            )
        by_class = ", ".join(f"{name} {score:.3f}" for name, score in learnt.f1.items())
        console.print(
            f"Kept epoch {learnt.best['epoch']:.0f}: held-out macro-F1 {learnt.best['macro_f1']:.3f} ({by_class}).\n"
            f"Router:  {out}\n"
            f"Picture: {out / 'training.png'}\n"
            f"Use:     router.RoutedCausalLM.from_pretrained({str(out)!r})",
            highlight=False,
            markup=False,
        )


#: What only one head has: its option, and what the request calls it.
_OF_HEAD = {
    "per-layer": {"warmup_steps", "gamma", "beta", "windows", "width"},
    "probe": {"early", "short", "aggregator"},
}


def _head_request(options: dict[str, Any]) -> Any:
    """What is to be trained, as the options say it.

    Raises:
        UserError: There is no such head, an option is another's, or out of its range.
    """
    from router.heads.early_exit.train import EarlyExitRequest
    from router.heads.per_layer.fit import FitConfig
    from router.heads.per_layer.train import PerLayerRequest
    from router.probes.network import ProbeKind

    head = options["head"]
    if head not in _OF_HEAD:
        raise UserError(f"--head {head!r} is unknown; choose one of: {', '.join(_OF_HEAD)}")
    context = click.get_current_context()
    for other, names in _OF_HEAD.items():
        given = [name for name in sorted(names) if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if other != head and given:
            raise UserError(f"--{given[0].replace('_', '-')} goes with --head {other}, not with {head}")
    shared = {name: options[name] for name in ("epochs", "batch_size", "weight_decay", "patience", "seed")}
    try:
        if head == "per-layer":
            return PerLayerRequest(
                num_windows=options["windows"],
                width=options["width"],
                fit=FitConfig(
                    learning_rate=options["lr"],
                    **shared,
                    **{name: options[name] for name in ("warmup_steps", "gamma", "beta")},
                ),
            )
        return EarlyExitRequest(
            early=options["early"],
            short=fractions("--short", options["short"]),
            kind=ProbeKind(aggregator=options["aggregator"]),
            fit=replace(EarlyExitRequest().fit, learning_rate=options["lr"], **shared),
        )
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        said = str(error)
        raise UserError(said if said.startswith("unknown") else f"--{said.replace('_', '-')}") from None

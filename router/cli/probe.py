"""``drllm-pipeline probe``: train, evaluate and use probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from pipeline.cli.console import Console
from pipeline.cli.options import LOCATION, interruptible
from pipeline.cli.progress_bar import StepReporter
from pipeline.cli.request_options import RequestCommand, filled, request_options
from pipeline.distributed.cluster import check_output
from pipeline.errors import UserError
from pipeline.storage import AnyPath, is_folder
from router.probes.probe_requests import CompareRequest, ProbeRequest, ProbeTrainRequest

_STOPPED = "Stopped. States that were computed are kept; run the same command again."


@click.group(
    short_help="Train and use probes: labels from the model's own forward pass.",
    help="""Train and use probes: small classifiers on a frozen model's hidden states (arXiv 2601.13288).

A probe reads what every layer makes of every token, sums it up, and says a label: sentiment, safety, topic, …. The
states come out of the forward pass that is run anyway, so a model that answers can label in the same pass.

\b
First steps:
  drllm-pipeline probe train --model smollm2 --data train.jsonl --out probes/emotion
  drllm-pipeline probe evaluate --probe probes/emotion --data test.jsonl
  drllm-pipeline probe predict --probe probes/emotion --data new.jsonl --out labels.jsonl
""",
)
def probe() -> None:
    """The group of the probe's commands."""


@probe.command(
    cls=RequestCommand,
    short_help="Train a probe on labelled texts.",
    help="""Train a probe on labelled texts.

The texts' hidden states are computed once, on Ray actors, and kept on the disk: another training reads them from there.
The probe of the epoch with the best macro-F1 on held-out texts is written to --out.

\b
Examples:
  drllm-pipeline probe train --model smollm2 --data train.jsonl --validation val.jsonl --out probes/emotion
  drllm-pipeline probe train --model meta-llama/Llama-3.2-3B-Instruct --data lmsys/toxic-chat:toxicchat0124 \\
      --text-column user_input --label-column toxicity --aggregator mha --out probes/toxic
""",
)
@request_options(ProbeTrainRequest, without=("warmup", "add_special_tokens"))
def train(**options: Any) -> None:
    """Train a probe."""
    request = filled(ProbeTrainRequest, options)
    from router.artifact.folder import PICTURE_FILE
    from router.probes.train import train_probe

    console = Console()

    def on_epoch(record: dict[str, float]) -> None:
        console.say(
            f"epoch {record['epoch']:3.0f}  loss {record['train_loss']:.4f}, held out {record['loss']:.4f}  "
            f"accuracy {record['accuracy']:.3f}  macro-F1 {record['macro_f1']:.3f}  {record['seconds']:.1f} s",
        )

    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            metrics = train_probe(request, announce=console.say, show=steps, on_epoch=on_epoch)
        _show(console, metrics, "Held out")
        console.say(
            f"Probe:   {request.out}\n"
            f"Picture: {request.out / PICTURE_FILE}\n"
            f"Use:     router.Probe.from_pretrained({str(request.out)!r})",
        )


@probe.command(
    cls=RequestCommand,
    short_help="Evaluate a probe on labelled texts.",
    help="""Evaluate a probe on labelled texts that it was not trained on.

\b
Example:
  drllm-pipeline probe evaluate --probe probes/emotion --data test.jsonl
""",
)
@request_options(ProbeRequest, data={"help": "Labelled texts, as for probe train."})
@click.option("--out", type=LOCATION, help="A JSON file for the figures.")
def evaluate(out: AnyPath | None, **options: Any) -> None:
    """Evaluate a probe."""
    request = filled(ProbeRequest, options)
    from router.probes.apply import evaluate_probe, write_metrics

    _check_file(out)
    console = Console()
    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            metrics = evaluate_probe(request, announce=console.say, show=steps)
        _show(console, metrics, "Figures")
        if out is not None:
            write_metrics(metrics, out)
            console.say(f"Written: {out}")


@probe.command(
    cls=RequestCommand,
    short_help="Label texts.",
    help="""Label texts: a JSON line a row, in their order, with the label and the score of every label.

\b
Example:
  drllm-pipeline probe predict --probe probes/emotion --data new.jsonl --out labels.jsonl
""",
)
@request_options(ProbeRequest, without=("label_column",))
@click.option("--out", required=True, type=LOCATION, help="A jsonl file.")
def predict(out: AnyPath, **options: Any) -> None:
    """Label texts."""
    request = filled(ProbeRequest, options)
    from router.probes.apply import predict as run

    console = Console()
    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            labels = run(request, out, announce=console.say, show=steps)
        counted = {label: sum(one.label == label for one in labels) for label in labels[0].scores}
        shares = ", ".join(f"{number} {label}" for label, number in counted.items())
        console.say(f"{len(labels)} texts: {shares}.\nWritten: {out}")


@probe.command(
    cls=RequestCommand,
    short_help="Compare kinds of probes with plain classifiers.",
    help="""Train kinds of probes and plain classifiers on the same texts, and evaluate them on the same others.

\b
Methods (--contender):
  pooling, gate, mha         the paper's three kinds, on all tokens of all layers
  gate-tokens, gate-layers   all tokens of the last layer; the last token of all layers
  last                       a linear probe on the last token of the last layer
  first-token                logistic regression on the logits of the first token of an answer (MULI)
  tf-idf                     logistic regression on words, without a model
  zero-shot                  the label that the model itself finds likeliest after the prompt of --question

\b
Example:
  drllm-pipeline probe compare --model smollm2 --data train.jsonl --validation val.jsonl --test test.jsonl
""",
)
@request_options(
    CompareRequest,
    without=("out", "aggregator", "scope", "learning_rate", "warmup", "seed", "add_special_tokens", "overwrite"),
    learning_rates={"default": "3e-4,1e-3,3e-3"},
)
@click.option("--out", type=LOCATION, help="A JSON file for the figures.")
def compare(out: AnyPath | None, **options: Any) -> None:
    """Compare kinds of probes."""
    # Nothing is written but the figures: trainings of a comparison have no probe folder.
    request = filled(CompareRequest, options, train=filled(ProbeTrainRequest, options, out=Path()))
    from router.probes.apply import write_metrics
    from router.probes.compare import compare as run

    _check_file(out)
    console = Console()
    evaluated: list[Any] = []

    def on_result(one: Any) -> None:
        evaluated.append(one)
        console.say(
            f"{one.method}: accuracy {one.mean('accuracy'):.3f}, macro-F1 {one.mean('macro_f1'):.3f}",
        )
        # After each: a long comparison that is stopped keeps the figures of the methods before.
        if out is not None:
            write_metrics({one.method: one.to_json() for one in evaluated}, out)

    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            run(request, announce=console.say, show=steps, on_result=on_result)
        console.print(_table(evaluated))
        if out is not None:
            console.say(f"Written: {out}")


def _table(results: Sequence[Any]) -> Table:
    table = Table(title="On --test, in %: mean ± deviation over the seeds")
    table.add_column("method")
    for column in ("accuracy", "macro-F1", "AUPRC", "ECE", "lr", "seconds"):
        table.add_column(column, justify="right")
    for one in results:
        figures = []
        for figure in ("accuracy", "macro_f1", "auprc", "calibration_error"):
            deviation = one.deviation(figure)
            spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
            figures.append(f"{100 * one.mean(figure):.1f}{spread}")
        rate = "" if one.learning_rate is None else f"{one.learning_rate:g}"
        seconds = "" if one.seconds is None else f"{one.seconds:.0f}"
        table.add_row(one.method, *figures, rate, seconds)
    return table


def _check_file(out: AnyPath | None) -> None:
    """Refuse a path to which no file can be written, before any work is done for it.

    Raises:
        UserError: The path is a folder, or would vanish with a job.
    """
    if out is not None:
        check_output(out)
        if is_folder(out):
            raise UserError(f"{out} is a folder; give a file to --out")


def _show(console: Console, metrics: dict[str, Any], title: str) -> None:
    auprc = "-" if metrics["auprc"] is None else f"{metrics['auprc']:.3f}"
    by_label = ", ".join(f"{label} {score:.3f}" for label, score in metrics["f1"].items())
    console.say(
        f"{title}: accuracy {metrics['accuracy']:.3f}, macro-F1 {metrics['macro_f1']:.3f}, AUPRC {auprc}, "
        f"calibration error {metrics['calibration_error']:.3f}\nF1: {by_label}",
    )

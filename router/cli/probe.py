"""``drllm-pipeline probe``: train, evaluate and use probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from pipeline.cli.options import LOCATION, interruptible, resource_options, resources_of
from pipeline.cli.progress_bar import StepReporter
from pipeline.distributed.cluster import check_output
from pipeline.errors import UserError
from pipeline.storage import AnyPath, is_folder
from router.probes.texts import QUESTION

Command = TypeVar("Command", bound=Callable[..., Any])
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


def _reading_options(command: Command) -> Command:
    """The options that say how texts' states come about."""
    for option in reversed(
        (
            click.option("--limit", type=int, help="Only the first N rows of --data."),
            click.option(
                "--features",
                type=click.Path(path_type=Path),
                help="Where states are kept.  [default: the user's cache]",
            ),
            click.option(
                "--max-states-gib",
                default=32.0,
                show_default=True,
                help="Most that these texts' states may take on the disk.",
            ),
        )
    ):
        command = option(command)
    return command


def _texts_options(command: Command) -> Command:
    """The options that say what is learnt from, and how."""
    for option in reversed(
        (
            click.option("--model", required=True, help="Hub id, local folder, .gguf file, or 'smollm2'."),
            click.option(
                "--data", required=True, help="Labelled texts: jsonl, csv or parquet file or folder, or a hub data set."
            ),
            click.option("--text-column", default="text", show_default=True, help="Column of the texts."),
            click.option("--label-column", default="label", show_default=True, help="Column of the labels."),
            click.option("--split", default="train", show_default=True, help="Split of a hub data set."),
            click.option("--validation", help="Labelled texts to stop by, as --data.  [default: a share of --data]"),
            click.option(
                "--validation-split",
                default="validation",
                show_default=True,
                help="Its split, if it is a hub data set.",
            ),
            click.option("--held-out", default=0.1, show_default=True, help="That share."),
            click.option("--template", default="{text}", show_default=True, help="What stands around a text."),
            click.option(
                "--max-tokens", type=int, help="Longer texts are cut.  [default: what the model was made for]"
            ),
            click.option(
                "--pooling",
                default="mean",
                show_default=True,
                metavar="mean|max",
                help="Of the aggregator pooling, and behind mha.",
            ),
            click.option("--downcast", default=32, show_default=True, help="What mha divides the model's width by."),
            click.option("--num-heads", default=2, show_default=True, help="Heads of mha."),
            click.option("--epochs", default=10, show_default=True, help="Most passes over the texts."),
            click.option("--batch-size", default=16, show_default=True, help="Texts of a step."),
            click.option("--weight-decay", default=0.01, show_default=True, help="Of AdamW."),
            click.option(
                "--balance",
                default=0.5,
                show_default=True,
                help="How much rare labels count for more, from 0 (alike) to 1.",
            ),
            click.option(
                "--patience", default=3, show_default=True, help="Epochs without a better macro-F1 until training ends."
            ),
        )
    ):
        command = option(command)
    return command


@probe.command(
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
@click.option("--out", required=True, type=LOCATION, help="Probe folder.")
@_texts_options
@click.option(
    "--aggregator",
    default="gate",
    show_default=True,
    metavar="pooling|gate|mha",
    help="How tokens, and then layers, are summed up: by pooling alone, by weights that a state says of itself, or "
    "by self-attention.",
)
@click.option(
    "--scope",
    default="all",
    show_default=True,
    metavar="all|tokens|layers|last",
    help="What is read: everything; all tokens of the last layer; the last token of all layers; the last of both.",
)
@click.option("--lr", default=1e-3, show_default=True, help="Learning rate of AdamW.")
@click.option("--seed", default=0, show_default=True, help="Of the weights and the order of the texts.")
@_reading_options
@resource_options
def train(out: AnyPath, **options: Any) -> None:
    """Train a probe."""
    from router.probes.train import PICTURE_FILE, train_probe

    request = _train_request(options, out=out)
    console = Console(soft_wrap=True)

    def on_epoch(record: dict[str, float]) -> None:
        console.print(
            f"epoch {record['epoch']:3.0f}  loss {record['train_loss']:.4f}, held out {record['loss']:.4f}  "
            f"accuracy {record['accuracy']:.3f}  macro-F1 {record['macro_f1']:.3f}  {record['seconds']:.1f} s",
            highlight=False,
        )

    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            metrics = train_probe(request, announce=_printer(console), show=steps, on_epoch=on_epoch)
        _show(console, metrics, "Held out")
        console.print(
            f"Probe:   {out}\nPicture: {out / PICTURE_FILE}\nUse:     router.Probe.from_pretrained({str(out)!r})",
            highlight=False,
            markup=False,
        )


@probe.command(
    short_help="Judge a probe on labelled texts.",
    help="""Judge a probe on labelled texts that it was not trained on.

\b
Example:
  drllm-pipeline probe evaluate --probe probes/emotion --data test.jsonl
""",
)
@click.option("--probe", "source", required=True, help="Probe folder, or hub id.")
@click.option("--data", required=True, help="Labelled texts, as for probe train.")
@click.option("--text-column", help="Column of the texts.  [default: that of the training]")
@click.option("--label-column", help="Column of the labels.  [default: that of the training]")
@click.option("--split", default="test", show_default=True, help="Split of a hub data set.")
@click.option("--base", help="Where the base model lies, if not where the probe was trained.")
@click.option("--out", type=LOCATION, help="A JSON file for the figures.")
@_reading_options
@resource_options
def evaluate(source: str, max_states_gib: float, out: AnyPath | None, **options: Any) -> None:
    """Judge a probe."""
    from router.probes.apply import evaluate_probe, write_metrics
    from router.probes.probe_requests import ProbeRequest

    _check_file(out)
    resources = _resources(options)
    request = ProbeRequest(probe=source, most_gib=max_states_gib, resources=resources, **options)
    console = Console(soft_wrap=True)
    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            metrics = evaluate_probe(request, announce=_printer(console), show=steps)
        _show(console, metrics, "Figures")
        if out is not None:
            write_metrics(metrics, out)
            console.print(f"Written: {out}", highlight=False, markup=False)


@probe.command(
    short_help="Label texts.",
    help="""Label texts: a JSON line a row, in their order, with the label and the score of every label.

\b
Example:
  drllm-pipeline probe predict --probe probes/emotion --data new.jsonl --out labels.jsonl
""",
)
@click.option("--probe", "source", required=True, help="Probe folder, or hub id.")
@click.option("--data", required=True, help="Texts: jsonl, csv or parquet file or folder, or a hub data set.")
@click.option("--out", required=True, type=LOCATION, help="A jsonl file.")
@click.option("--text-column", help="Column of the texts.  [default: that of the training]")
@click.option("--split", default="test", show_default=True, help="Split of a hub data set.")
@click.option("--base", help="Where the base model lies, if not where the probe was trained.")
@_reading_options
@resource_options
def predict(source: str, max_states_gib: float, out: AnyPath, **options: Any) -> None:
    """Label texts."""
    from router.probes.apply import predict as run
    from router.probes.probe_requests import ProbeRequest

    resources = _resources(options)
    request = ProbeRequest(probe=source, most_gib=max_states_gib, resources=resources, **options)
    console = Console(soft_wrap=True)
    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            labels = run(request, out, announce=_printer(console), show=steps)
        counted = {label: sum(one.label == label for one in labels) for label in labels[0].scores}
        shares = ", ".join(f"{number} {label}" for label, number in counted.items())
        console.print(f"{len(labels)} texts: {shares}.\nWritten: {out}", highlight=False, markup=False)


@probe.command(
    short_help="Compare kinds of probes with plain classifiers.",
    help="""Train kinds of probes and plain classifiers on the same texts, and judge them on the same others.

\b
Contenders:
  pooling, gate, mha         the paper's three kinds, on all tokens of all layers
  gate-tokens, gate-layers   all tokens of the last layer; the last token of all layers
  last                       a linear probe on the last token of the last layer
  first-token                logistic regression on the logits of the first token of an answer (MULI)
  tf-idf                     logistic regression on words, without a model
  zero-shot                  the label that the model itself finds likeliest, asked by --question

\b
Example:
  drllm-pipeline probe compare --model smollm2 --data train.jsonl --validation val.jsonl --test test.jsonl
""",
)
@_texts_options
@click.option("--test", required=True, help="Labelled texts to be judged on, as --data.")
@click.option("--test-split", default="test", show_default=True, help="Its split, if it is a hub data set.")
@click.option("--contender", "contenders", multiple=True, help="Only this one; may be repeated.  [default: all]")
@click.option("--seeds", default=3, show_default=True, help="Trainings of each probe.")
@click.option(
    "--lr",
    "rates",
    default="3e-4,1e-3,3e-3",
    show_default=True,
    help="Learning rates of AdamW: each probe takes the one that is best on the held-out texts, for the first seed.",
)
@click.option("--question", default=QUESTION, help="How the model is asked; {text} and {labels} stand for those.")
@click.option("--out", type=LOCATION, help="A JSON file for the figures.")
@_reading_options
@resource_options
def compare(
    test: str,
    test_split: str,
    contenders: tuple[str, ...],
    seeds: int,
    rates: str,
    question: str,
    out: AnyPath | None,
    **options: Any,
) -> None:
    """Compare kinds of probes."""
    from router.probes.apply import write_metrics
    from router.probes.compare import compare as run
    from router.probes.probe_requests import METHODS, CompareRequest

    try:
        learning_rates = tuple(float(rate) for rate in rates.split(",") if rate.strip())
    except ValueError:
        raise UserError(f"--lr takes numbers with commas between them, got {rates!r}") from None
    request = CompareRequest(
        train=_train_request(options, out=Path()),
        learning_rates=learning_rates,
        test=test,
        test_split=test_split,
        methods=contenders or METHODS,
        seeds=seeds,
        question=question,
    )
    _check_file(out)
    console = Console(soft_wrap=True)
    judged: list[Any] = []

    def on_result(one: Any) -> None:
        judged.append(one)
        console.print(
            f"{one.method}: accuracy {one.mean('accuracy'):.3f}, macro-F1 {one.mean('macro_f1'):.3f}",
            highlight=False,
        )
        # After each: whoever stops a long comparison keeps what was judged.
        if out is not None:
            write_metrics({one.method: one.to_json() for one in judged}, out)

    with interruptible(console, _STOPPED):
        with StepReporter(console) as steps:
            run(request, announce=_printer(console), show=steps, on_result=on_result)
        console.print(_table(judged))
        if out is not None:
            console.print(f"Written: {out}", highlight=False, markup=False)


def _train_request(options: dict[str, Any], *, out: AnyPath) -> Any:
    """A training as the options say it; takes what it uses out of them."""
    from router.features.prompt_template import PromptTemplate
    from router.probes.probe_requests import ProbeFitConfig, ProbeKind, ProbeTrainRequest

    names = {"lr": "learning_rate"} | {
        name: name for name in ("epochs", "batch_size", "weight_decay", "balance", "patience", "seed")
    }
    try:
        fit = ProbeFitConfig(**{field: options.pop(name) for name, field in names.items() if name in options})
    except ValueError as error:
        raise UserError(f"--{str(error).replace('learning_rate', 'lr').replace('_', '-')}") from None
    kinds = [name for name in ("aggregator", "pooling", "scope", "downcast", "num_heads") if name in options]
    try:
        kind = ProbeKind(**{name: options.pop(name) for name in kinds})
    except ValueError as error:
        said = str(error)
        raise UserError(said if said.startswith("unknown") else f"--{said.replace('_', '-')}") from None
    prompt_template = PromptTemplate(template=options.pop("template"), max_tokens=options.pop("max_tokens"))
    most_gib, resources = options.pop("max_states_gib"), _resources(options)
    return ProbeTrainRequest(
        out=out, prompt_template=prompt_template, kind=kind, fit=fit, most_gib=most_gib, resources=resources, **options
    )


def _table(results: Sequence[Any]) -> Table:
    table = Table(title="On --test, in %: mean ± deviation over the seeds")
    table.add_column("contender")
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
    """Refuse a place where no file can be written, before anything is done for it.

    Raises:
        UserError: It is a folder, or would vanish with a job.
    """
    if out is not None:
        check_output(out)
        if is_folder(out):
            raise UserError(f"{out} is a folder; give a file to --out")


def _resources(options: dict[str, Any]) -> Any:
    """Takes the resource options out of a command's."""
    resources = resources_of(options)
    for name in ("actors", "device", "num_gpus", "cpus_per_actor", "dtype"):
        del options[name]
    return resources


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, highlight=False, markup=False)


def _show(console: Console, metrics: dict[str, Any], title: str) -> None:
    auprc = "-" if metrics["auprc"] is None else f"{metrics['auprc']:.3f}"
    by_label = ", ".join(f"{label} {score:.3f}" for label, score in metrics["f1"].items())
    console.print(
        f"{title}: accuracy {metrics['accuracy']:.3f}, macro-F1 {metrics['macro_f1']:.3f}, AUPRC {auprc}, "
        f"calibration error {metrics['calibration_error']:.3f}\nF1: {by_label}",
        highlight=False,
        markup=False,
    )

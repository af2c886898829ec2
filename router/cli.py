"""The commands of ``drllm-pipeline`` that make, judge and hand out routers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from pipeline.errors import UserError
from pipeline.options import LOCATION, interruptible, resource_options, resources_of
from pipeline.reporting import StepReporter
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
    from router.train import TrainRequest
    from router.train import train as run

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
    from router.fit import FitConfig
    from router.learn_depth import DepthRequest
    from router.learn_per_layer import PerLayerRequest
    from router.probes import ProbeKind

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
        return DepthRequest(
            early=options["early"],
            short=_fractions("--short", options["short"]),
            kind=ProbeKind(aggregator=options["aggregator"]),
            fit=replace(DepthRequest().fit, learning_rate=options["lr"], **shared),
        )
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        said = str(error)
        raise UserError(said if said.startswith("unknown") else f"--{said.replace('_', '-')}") from None


def _fractions(option: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        UserError: One is none.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"{option} takes numbers with commas between them, got {text!r}") from None


@click.command(
    short_help="Judge a router on questions that it never saw.",
    help="""Judge a router on held-out questions, beside what it must be compared with.

The base model, the routed one, the best single program of the training questions, random programs of the
same lengths, and the search itself, which knows the answers: all answer the same questions, greedily. Questions
that the routers were trained on are left out. Results go to evaluation.json and evaluation.png.

\b
Examples:
  drllm-pipeline evaluate --router routers/sums --task arithmetic --limit 500
  drllm-pipeline evaluate --router routers/arc --task arc --data allenai/ai2_arc:ARC-Easy --budget 0.9
  drllm-pipeline evaluate --router routers/sums --against routers/sums-probe --task arithmetic --limit 500
""",
)
@click.option("--router", required=True, type=LOCATION, help="Router folder, or hub id.")
@click.option(
    "--against",
    multiple=True,
    type=LOCATION,
    help="Another router of the same base, to be judged on the same questions; may be repeated.",
)
@click.option("--task", required=True, metavar="NAME", help="As for search.")
@click.option("--data", help="As for search.")
@click.option("--split", default="test", show_default=True, help="Split of a hub data set or of 'arithmetic'.")
@click.option("--limit", type=int, help="Only the first N questions.")
@click.option("--budget", type=float, help="Most layers of any sequence, as a fraction of the depth.")
@click.option("--average", type=float, help="Layers on average, as a fraction of the depth.")
@click.option("--curve", default="0.95,0.9,0.85,0.8,0.7", show_default=True, help="Budgets of the curve; '' for none.")
@click.option("--simulations", default=50, show_default=True, help="Of the search that is the ceiling; 0 for none.")
@click.option("--runs", multiple=True, type=LOCATION, help="Training runs, if not where they were.")
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--max-new-tokens", type=int, help="Most tokens of a generated answer.  [default: the task's own]")
@click.option("--seed", default=0, show_default=True, help="Of made questions, random programs and the search.")
@click.option("--out", type=LOCATION, help="Folder of the results.  [default: the router's]")
@resource_options
def evaluate(
    router: AnyPath, against: tuple[AnyPath, ...], task: str, curve: str, runs: tuple[AnyPath, ...], **options: Any
) -> None:
    """Judge a router."""
    from router.evaluate import PICTURE_FILE, RESULTS_FILE, EvaluateRequest, results_folder, write
    from router.evaluate import evaluate as run
    from router.reporting import show_evaluation

    request = EvaluateRequest(
        router=router,
        against=against,
        task=task,
        curve=_fractions("--curve", curve),
        runs=runs or None,
        resources=resources_of(options),
        **{
            name: options[name]
            for name in (
                "data",
                "split",
                "limit",
                "seed",
                "max_new_tokens",
                "budget",
                "average",
                "simulations",
                "base",
                "out",
            )
        },
    )
    console = Console(soft_wrap=True)
    with interruptible(console, "Stopped; no evaluation was written."):
        with StepReporter(console) as steps:
            evaluation = run(
                request, announce=lambda line: console.print(line, highlight=False, markup=False), show=steps
            )
        show_evaluation(evaluation, console)
        out = results_folder(request)
        write(evaluation, out)
        console.print(f"Results: {out / RESULTS_FILE}\nPicture: {out / PICTURE_FILE}", highlight=False, markup=False)


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
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where it runs.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
def generate(router: str, prompt: str, max_new_tokens: int, **options: Any) -> None:
    """Answer a prompt."""
    import transformers

    from router.routed import RoutedCausalLM

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    lm = RoutedCausalLM.from_pretrained(router, **options)
    [answer] = lm.generate([prompt], max_new_tokens=max_new_tokens)
    [program] = lm.last_programs
    click.echo(prompt + answer)
    click.echo(f"{len(program)} of {program.num_layers} layers ran: {program}")


@click.command(
    name="lm-eval",
    short_help="Run lm-evaluation-harness on a routed model.",
    context_settings={"ignore_unknown_options": True},
    help="""Run lm-evaluation-harness on a routed model.

What follows -- goes to lm-eval's own command line. The prompt of each request decides its program; the results' config
says how many layers ran. Needs the harness: pip install 'drllm-pipeline[lm-eval]'.

\b
Examples:
  drllm-pipeline lm-eval --router routers/arc --budget 0.8 -- --tasks arc_easy --limit 200
  drllm-pipeline lm-eval --router routers/sums -- --tasks my_task --include_path tasks --output_path results
""",
)
@click.option("--router", required=True, help="Router folder, or hub id.")
@click.option("--budget", type=float, help="Most layers of any sequence, as a fraction of the depth.")
@click.option("--average", type=float, help="Layers on average, as a fraction of the depth.")
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lm_eval(arguments: tuple[str, ...], **model_args: Any) -> None:
    """Run lm-evaluation-harness."""
    from router.checkpoint import Router
    from router.routed import limit_of

    router = Router.load(model_args["router"])
    limit_of(router.head, model_args["budget"])
    try:
        from router.harness import run_harness
    except ImportError as error:
        raise UserError(f"lm-eval needs its package: pip install 'drllm-pipeline[lm-eval]' ({error})") from None
    run_harness(arguments, model_args=model_args)


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
@click.option("--budget", type=float, help="Of the router.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.option("--out", required=True, type=LOCATION, help="Folder of the checkpoint.")
def export(**options: Any) -> None:
    """Write one program as a stock checkpoint."""
    from router.export import export_program

    program = export_program(**options)
    Console(soft_wrap=True).print(
        f"{len(program)} of {program.num_layers} layers ({program}): {options['out']}\n"
        f"Load: transformers.AutoModelForCausalLM.from_pretrained({str(options['out'])!r})",
        highlight=False,
        markup=False,
    )

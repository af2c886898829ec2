"""The commands of ``drllm-pipeline`` that make, judge and hand out routers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from pipeline.errors import UserError
from pipeline.options import interruptible, resource_options, resources_of
from pipeline.reporting import StepReporter


@click.command(
    short_help="Train per-layer routers on path data sets.",
    help="""Train per-layer routers on the path data sets that `search` wrote.

Each layer gets a small network that reads the prompt as it enters that layer and says whether the layer is
skipped, run, or run twice. On Ray, a menu of programs is run on all questions to label them (--labels), and prompts are
read along their labels. All of it is kept (--features): a second training with the same labels runs nothing.

\b
Examples:
  drllm-pipeline train --data runs/sums --out routers/sums
  drllm-pipeline train --data runs/arc --data runs/gsm8k --out routers/mixed --epochs 40

A search for training should keep more programs than the default four (search --keep 64): there are then more
that many questions share, which routers can learn.
""",
)
@click.option(
    "--data", "runs", required=True, multiple=True, type=click.Path(path_type=Path), help="Run folder; may be repeated."
)
@click.argument("more_runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Router folder.")
@click.option(
    "--labels",
    default="expected",
    show_default=True,
    metavar="expected|consensus|shortest",
    help="A question's label. expected: of a menu of programs, which are run on all questions, the one it should "
    "expect most of, as far as questions like it tell. consensus: of its own right programs the one most like other "
    "questions'. shortest: the shortest of them, as in the paper.",
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
@click.option("--held-out", default=0.1, show_default=True, help="Share of the questions that training stops by.")
@click.option("--seed", default=0, show_default=True, help="Of the weights, the order and the held-out questions.")
@click.option(
    "--features", type=click.Path(path_type=Path), help="Where prompts' features are kept.  [default: the user's cache]"
)
@click.option("--base", help="Hub id, folder or .gguf file of the searched model, if it lies elsewhere now.")
@click.option("--wandb", metavar="PROJECT", help="Also report to Weights & Biases.")
@resource_options
def train(runs: tuple[Path, ...], more_runs: tuple[Path, ...], out: Path, labels: str, **options: Any) -> None:
    """Train per-layer routers."""
    from router.fit import FitConfig
    from router.train import TrainRequest
    from router.train import train as run

    try:
        fit = FitConfig(
            epochs=options["epochs"],
            batch_size=options["batch_size"],
            learning_rate=options["lr"],
            weight_decay=options["weight_decay"],
            warmup_steps=options["warmup_steps"],
            gamma=options["gamma"],
            beta=options["beta"],
            patience=options["patience"],
            seed=options["seed"],
        )
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-')}") from None
    request = TrainRequest(
        data=(*runs, *more_runs),
        out=out,
        base=options["base"],
        labels=labels,
        layer_price=options["layer_price"],
        held_out=options["held_out"],
        num_windows=options["windows"],
        width=options["width"],
        fit=fit,
        features=options["features"],
        resources=resources_of(options),
        wandb=options["wandb"],
    )
    console = Console(soft_wrap=True)

    def on_epoch(record: dict[str, float]) -> None:
        console.print(
            f"epoch {record['epoch']:3.0f}  loss {record['train_loss']:.4f}, held out {record['loss']:.4f}  "
            f"macro-F1 {record['macro_f1']:.3f}  layers {record['layers']:.1f}  {record['seconds']:.1f} s",
            highlight=False,
        )

    with interruptible(
        console, "Stopped. Features and verdicts that were computed are kept; run the same command again."
    ):
        with StepReporter(console) as steps:
            fitted = run(
                request,
                announce=lambda line: console.print(line, highlight=False, markup=False),
                show=steps,
                on_epoch=on_epoch,
            )
        best = fitted.best
        console.print(
            f"Kept epoch {best['epoch']:.0f}: held-out macro-F1 {best['macro_f1']:.3f} "
            f"(skip {best['f1_skip']:.3f}, execute {best['f1_execute']:.3f}, repeat {best['f1_repeat']:.3f}).\n"
            f"Router:  {out}\n"
            f"Picture: {out / 'training.png'}\n"
            f"Use:     router.RoutedCausalLM.from_pretrained({str(out)!r})",
            highlight=False,
            markup=False,
        )


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
""",
)
@click.option("--router", required=True, type=click.Path(path_type=Path), help="Router folder, or hub id.")
@click.option("--task", required=True, metavar="NAME", help="As for search.")
@click.option("--data", help="As for search.")
@click.option("--split", default="test", show_default=True, help="Split of a hub data set or of 'arithmetic'.")
@click.option("--limit", type=int, help="Only the first N questions.")
@click.option("--budget", type=float, help="Most layers of any sequence, as a fraction of the depth.")
@click.option("--average", type=float, help="Layers on average, as a fraction of the depth.")
@click.option("--curve", default="0.95,0.9,0.85,0.8,0.7", show_default=True, help="Budgets of the curve; '' for none.")
@click.option("--simulations", default=50, show_default=True, help="Of the search that is the ceiling; 0 for none.")
@click.option("--runs", multiple=True, type=click.Path(path_type=Path), help="Training runs, if not where they were.")
@click.option("--base", help="Where the base model lies, if not where the router was trained.")
@click.option("--max-new-tokens", type=int, help="Most tokens of a generated answer.  [default: the task's own]")
@click.option("--seed", default=0, show_default=True, help="Of made questions, random programs and the search.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.  [default: the router's]")
@resource_options
def evaluate(router: Path, task: str, curve: str, runs: tuple[Path, ...], **options: Any) -> None:
    """Judge a router."""
    from router.evaluate import PICTURE_FILE, RESULTS_FILE, EvaluateRequest, results_folder, write
    from router.evaluate import evaluate as run
    from router.reporting import show_evaluation

    try:
        budgets = tuple(float(part) for part in curve.split(",") if part.strip())
    except ValueError:
        raise UserError(f"--curve takes budgets with commas between them, got {curve!r}") from None
    request = EvaluateRequest(
        router=router,
        task=task,
        curve=budgets,
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
    from router.routed import layers_of

    router = Router.load(model_args["router"])
    if model_args["budget"] is not None:
        layers_of(model_args["budget"], router.config.num_layers)
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
@click.option("--router", type=click.Path(path_type=Path), help="Router folder.")
@click.option("--prompt", help="The program that the router chooses for this prompt.")
@click.option("--budget", type=float, help="Of the router.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the checkpoint.")
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

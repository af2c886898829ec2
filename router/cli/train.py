"""The command ``drllm-pipeline train``: a router from path data sets, or from a menu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.cli.console import Console
from pipeline.cli.options import LOCATION, interruptible
from pipeline.cli.progress_bar import StepReporter
from pipeline.cli.request_options import RequestCommand, filled, option_names, request_options
from pipeline.errors import UserError
from pipeline.storage import AnyPath
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.head_request import HeadRequest
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.heads.requests import HEAD_REQUESTS, OLD_NAMES
from router.heads.selector.selector_request import SelectorRequest
from router.probes.probe_requests import ProbeKind
from router.training.menu_train_request import MenuTrainRequest
from router.training.train_request import TrainRequest

if TYPE_CHECKING:
    from router.training.train import TrainedRouter


@click.command(
    cls=RequestCommand,
    short_help="Train a router on path data sets, or on a menu.",
    help="""Train a router on the path data sets that `search` wrote, or on a menu.

Each layer gets a small network that reads the prompt as it enters that layer and says whether the layer is
skipped, run, or run twice (--head per-layer). Or one classifier reads the hidden states behind the first layers, and
predicts whether a short program suffices, whether the base model is needed, or whether a correction is (--head
early-exit); each class has one program.

On Ray, programs are run on all examples to label them (--labels), and prompts are read. All of it is kept
(--features): a second training with the same labels runs nothing.

\b
Examples:
  drllm-pipeline train --data runs/sums --out routers/sums
  drllm-pipeline train --data runs/arc --data runs/gsm8k --out routers/mixed --epochs 40
  drllm-pipeline train --data runs/sums --out routers/sums-early-exit --head early-exit --short 0.9

With --menu a selector is trained instead: one regression from the states behind the first layers to the chance that
each program of the menu is right. It is validated in folds beside the base model, the best static program, nearest
neighbours and the oracle, and runs the best static program where no other one is clearly better.

\b
  drllm-pipeline train --menu menus/sums --out routers/selector

With --menu and --head per-layer the matrix labels every example, and the small networks of all layers are trained on
the states along those labels, then on the states along their own programs too (--rounds).

\b
  drllm-pipeline train --menu menus/sums --head per-layer --out routers/per-layer

A search for training should keep more programs than the default four (search --keep 64): there are then more
that many examples share, which routers can learn.
""",
)
@request_options(TrainRequest, without=("head", "resources", "features", "base", "wandb", "overwrite"))
@click.argument("more_runs", nargs=-1, type=LOCATION)
@click.option(
    "--head",
    default="per-layer",
    show_default=True,
    metavar="|".join(HEAD_REQUESTS),
    help="A router for every layer, or one classifier behind the first layers; with --menu a selector, unless given.",
)
@request_options(PerLayerRequest)
@request_options(EarlyExitRequest, "early", "short")
@request_options(SelectorRequest, "menu", "exit", "feedback", menu={"default": None})
@request_options(MenuTrainRequest, "rounds")
@request_options(ProbeKind, "aggregator", aggregator={"help": "Of --head early-exit; see probe train."})
@request_options(TrainRequest, "features", "base", "wandb", "overwrite", "resources")
def train(
    data: tuple[AnyPath, ...], more_runs: tuple[AnyPath, ...], head: str, menu: AnyPath | None, **options: Any
) -> None:
    """Train a router."""
    if menu is not None and not _is_given("head"):
        _train_selector(menu, options)
        return
    run: Callable[..., TrainedRouter]
    request: TrainRequest | MenuTrainRequest
    if menu is not None:
        request = _on_menu(menu, head, options)
        from router.training.train_on_menu import train_on_menu as run
    else:
        for field in ("exit", "feedback", "rounds"):
            if _is_given(field):
                raise UserError(f"--{field} goes with --menu")
        _check_price(options["labels"])
        request = filled(TrainRequest, options, data=(*data, *more_runs), head=_head_request(head, options))
        from router.training.train import train as run
    _train(request, run)


def _train(request: TrainRequest | MenuTrainRequest, run: Callable[..., TrainedRouter]) -> None:
    """Run a training, and show its epochs and what the router is worth."""
    console = Console()

    def on_epoch(record: dict[str, float]) -> None:
        layers = f"  layers {record['layers']:.1f}" if "layers" in record else ""
        console.say(
            f"epoch {record['epoch']:3.0f}  loss {record['train_loss']:.4f}, held out {record['loss']:.4f}  "
            f"macro-F1 {record['macro_f1']:.3f}{layers}  {record['seconds']:.1f} s"
        )

    with interruptible(
        console, "Stopped. Features and verdicts that were computed are kept; run the same command again."
    ):
        with StepReporter(console) as steps:
            trained = run(request, announce=console.say, show=steps, on_epoch=on_epoch)
        if trained.head is not None:
            best, f1 = trained.head.best, trained.head.f1
            by_class = ", ".join(f"{name} {score:.3f}" for name, score in f1.items())
            console.say(f"Kept epoch {best['epoch']:.0f}: held-out macro-F1 {best['macro_f1']:.3f} ({by_class}).")
        advice = (
            "Make a menu of more examples, or train a selector on it: train --menu without --head."
            if isinstance(request, MenuTrainRequest)
            else "Search more examples, or train on a menu of programs that are good on many: drllm-pipeline menu, "
            "then train --menu."
        )
        console.say(_verdict_on(trained, advice))
        picture = f"Picture: {request.out / 'training.png'}\n" if trained.head is not None else ""
        console.say(
            f"Router:  {request.out}\n"
            f"{picture}"
            f"Use:     router.RoutedCausalLM.from_pretrained({str(request.out)!r})\n"
            f'Try:     drllm-pipeline generate --router {request.out} --prompt "…"\n'
            f"Judge:   drllm-pipeline evaluate --router {request.out} --task NAME  (on other examples)"
        )


def _verdict_on(trained: TrainedRouter, advice: str) -> str:
    """What the router is worth beside one program for all prompts, and what to do where it is worth less.

    Args:
        trained: The end of the training.
        advice: What to do.
    """
    judgement = trained.judgement
    if judgement is None:
        return "The router was not judged: its training's examples cannot be read again."
    best = judgement.best_program
    if trained.head is None:
        return f"{judgement.describe()}\nThe router runs {best.described} for all prompts, the best that is known."
    if not judgement.router_is_worse:
        return judgement.describe()
    return (
        f"{judgement.describe()}\nThe router is worth less than {best.described} for all prompts, which it runs unless "
        f"told otherwise (generate --no-fallback). {advice}"
    )


def _on_menu(menu: AnyPath, head: str, options: dict[str, Any]) -> MenuTrainRequest:
    """The request of per-layer routers on a menu.

    Raises:
        UserError: Another kind of router is asked for, or an option has no effect.
    """
    if OLD_NAMES.get(head, head) != PerLayerRequest.name:
        raise UserError(
            f"--head {head} does not go with --menu; leave --head out, or give --head {PerLayerRequest.name}"
        )
    _refuse_others({*option_names(MenuTrainRequest), *option_names(PerLayerRequest), "head"}, "--menu --head per-layer")
    options = _without_price_of_runs(options)
    return filled(MenuTrainRequest, options, menu=menu, head=filled(PerLayerRequest, options))


def _without_price_of_runs(options: dict[str, Any]) -> dict[str, Any]:
    """The options without the price of a layer, unless it is given: its default for a menu is another one."""
    given = _is_given("layer_price")
    return {name: value for name, value in options.items() if given or name != "layer_price"}


def _refuse_others(known: set[str], given_with: str) -> None:
    """Refuse an option that is given and is not known.

    Raises:
        UserError: There is one.
    """
    for parameter in click.get_current_context().command.params:
        if parameter.name is not None and parameter.name not in known and _is_given(parameter.name):
            named = "a run folder" if isinstance(parameter, click.Argument) else parameter.opts[0]
            raise UserError(f"{named} has no effect with {given_with}; leave it out")


def _train_selector(menu: AnyPath, options: dict[str, Any]) -> None:
    """Train a selector on a menu, and show how it validates."""
    _refuse_others({*option_names(SelectorRequest), "fit", "seed"}, "--menu")
    options = _without_price_of_runs(options)
    request = filled(SelectorRequest, options, menu=menu)
    from router.artifact.folder import VALIDATION_FILE
    from router.heads.selector.validation_table import describe_selector, validation_table
    from router.training.train_selector import train_selector

    console = Console()
    with interruptible(console, "Stopped. Features that were computed are kept; run the same command again."):
        with StepReporter(console) as steps:
            trained = train_selector(request, announce=console.say, show=steps)
        console.print(validation_table(trained.validated))
        console.say(describe_selector(trained.router.head, trained.best_static, trained.validated, trained.gap_closed))
        if (fallback := trained.router.fallback) is not None:
            console.say(
                f"The router runs {fallback.described} for all prompts unless told otherwise (generate --no-fallback)."
            )
        console.say(
            f"Router:     {request.out}\n"
            f"Validation: {request.out / VALIDATION_FILE}\n"
            f"Use:        router.RoutedCausalLM.from_pretrained({str(request.out)!r})"
        )


def _is_given(field: str) -> bool:
    """Whether the option of a field is on the command line."""
    return click.get_current_context().get_parameter_source(field) is ParameterSource.COMMANDLINE


def _check_price(labels: str) -> None:
    """Refuse a price in the unit of other labels.

    Raises:
        UserError: The price has no effect on these labels.
    """
    if labels == "consensus" and _is_given("layer_price"):
        raise UserError("--layer-price has no effect on --labels consensus; give --consensus-price (in nats)")
    if labels != "consensus" and _is_given("consensus_price"):
        raise UserError(
            f"--consensus-price has no effect on --labels {labels}; give --layer-price (in right answers per example)"
        )


def _head_request(head: str, options: dict[str, Any]) -> HeadRequest:
    """The request of the kind of router that the options name.

    Raises:
        UserError: There is no such kind, an option goes with another one, or is out of its range.
    """
    request = HEAD_REQUESTS.get(OLD_NAMES.get(head, head))
    if request is None:
        raise UserError(f"--head {head!r} is unknown; choose one of: {', '.join(HEAD_REQUESTS)}")
    for other, of_other in HEAD_REQUESTS.items():
        for field, name in option_names(of_other).items():
            if _is_given(field) and field not in option_names(request):
                raise UserError(f"{name} goes with --head {other}, not with {request.name}")
    return filled(request, options)

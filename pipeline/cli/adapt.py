"""``drllm-pipeline adapt``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.cli.options import LOCATION, interruptible, resource_options, resources_of
from pipeline.cli.progress_bar import StepReporter
from pipeline.errors import UserError
from pipeline.search.config import search_preset
from pipeline.storage import AnyPath, without_secrets

if TYPE_CHECKING:
    from pipeline.adaptation.adapt import AdaptConfig, Adapted
    from pipeline.adaptation.voting_trial import Trial


@click.command(
    short_help="Find the chain of layers that serves one prompt best.",
    help="""Find the chain of layers that serves one prompt best, with its answer or without.

With --answer, this is the search of CoLa: chains that give the answer, the shortest first. Without, nobody knows what
is right: programs one edit away from the untouched model vote, each by how sure it is, and what they agree on takes
the answer's place. That can be wrong; --task asks the questions of a task in that way, and says how often it is.

\b
Examples:
  drllm-pipeline adapt --model smollm2 --prompt "7 * 8 = 56, 6 * 7 =" --answer 42
  drllm-pipeline adapt --model smollm2 --prompt "The capital of France is" --option Paris --option Rome
  drllm-pipeline adapt --model smollm2 --task arithmetic --split test --limit 200 --simulations 0
""",
)
@click.option("--model", required=True, help="Hub id, local folder, .gguf file, or 'smollm2' (embedded).")
@click.option("--prompt", help="The text to continue, as it is.")
@click.option("--answer", help="What the model should answer; leave it out where nobody knows.")
@click.option("--option", "options", multiple=True, help="An answer to choose from, by likelihood; several times.")
@click.option("--chat", is_flag=True, help="Put the prompt into the model's chat template, as the user's turn.")
@click.option("--task", metavar="NAME", help="Instead of --prompt: every question of a task, its answer not told.")
@click.option("--data", help="The task's questions, as for search.")
@click.option("--split", default="test", show_default=True, help="Split of a hub data set or of 'arithmetic'.")
@click.option("--limit", type=int, help="Only the first N questions.")
@click.option("--votes", default=32, show_default=True, help="Programs that vote where the answer is not given.")
@click.option("--action-space", metavar="NAME", default="cola", show_default=True, help="As for search.")
@click.option("--simulations", type=int, help="Chains that are tried; 0 for none.  [default: 200; drllm: 50]")
@click.option("--budget", default=1.0, show_default=True, help="Longest chain, as a fraction of the depth.")
@click.option("--max-length", default=2.0, show_default=True, help="Longest chain tried at all, likewise.")
@click.option("--prior", type=LOCATION, metavar="RUN|FILE", help="What a run has learnt, as for search.")
@click.option("--max-new-tokens", type=int, help="Most tokens of a written answer.  [default: 32, or the task's own]")
@click.option("--seed", default=0, show_default=True, help="Of the voters, the search and made questions.")
@click.option("--out", type=LOCATION, help="With --task: file of all answers, as JSON.")
@resource_options
def adapt(
    model: str, prompt: str | None, task: str | None, options: tuple[str, ...], chat: bool, **settings: Any
) -> None:
    """Find the chain of layers that serves one prompt best."""
    if (prompt is None) == (task is None):
        raise UserError("give --prompt, or --task for many questions; one of the two")
    one_prompt = {"--answer": settings["answer"] is not None, "--option": bool(options), "--chat": chat}
    many = {name: settings[name.removeprefix("--")] is not None for name in ("--data", "--limit", "--out", "--actors")}
    refused = [name for name, given in (one_prompt if prompt is None else many).items() if given]
    if refused:
        other = "--prompt" if prompt is None else "--task"
        raise UserError(f"{', '.join(refused)} {'goes' if len(refused) == 1 else 'go'} with {other}")
    config = _config(settings)
    console = Console(soft_wrap=True)
    if prompt is not None:
        _adapt_prompt(model, prompt, options, chat, config, settings, console)
    else:
        assert task is not None
        _try_task(model, task, config, settings, console)


def _config(settings: dict[str, Any]) -> AdaptConfig:
    from pipeline.adaptation.adapt import AdaptConfig

    try:
        chosen = search_preset("default", settings["action_space"])
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from None
    simulations = chosen.simulations if settings["simulations"] is None else settings["simulations"]
    if simulations < 0:
        raise UserError(f"--simulations must not be below 0 (0 looks for no chain), got {simulations}")
    try:
        return AdaptConfig(
            search=replace(
                chosen,
                budget=settings["budget"],
                max_length=settings["max_length"],
                simulations=max(simulations, 1),
            ),
            look_for_chain=simulations > 0,
            votes=settings["votes"],
            seed=settings["seed"],
        )
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from None


def _adapt_prompt(
    model: str,
    prompt: str,
    options: tuple[str, ...],
    chat: bool,
    config: AdaptConfig,
    settings: dict[str, Any],
    console: Console,
) -> None:
    import transformers

    from pipeline import FrozenModel
    from pipeline import adapt as run
    from pipeline.adaptation.adapt import as_example
    from pipeline.model_source import resolve_model
    from pipeline.shards.calibration import read_prior
    from pipeline.shards.run_config import DEFAULT_CACHE_GIB

    # What is refused is refused before a model is loaded.
    resources_of(settings)
    as_example(prompt, settings["answer"], options)
    try:
        prior = None if settings["prior"] is None else read_prior(settings["prior"])
        source = resolve_model(model)
    except OSError as error:
        where = without_secrets(str(error.filename or "a file"))
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with interruptible(console, "Stopped; nothing was found yet."), StepReporter(console) as steps:
        frozen = FrozenModel.load(
            source.location,
            device=settings["device"],
            dtype=settings["dtype"],
            revision=source.hub_revision,
            cache_bytes=int(DEFAULT_CACHE_GIB * (1 << 30)),
        )
        length = settings["max_new_tokens"]
        found = run(
            frozen,
            prompt,
            settings["answer"],
            options=options,
            chat=chat,
            config=config,
            prior=prior,
            show=steps,
            **({} if length is None else {"max_new_tokens": length}),
        )
    _show(found, frozen.num_layers, console)


def _show(found: Adapted, num_layers: int, console: Console) -> None:
    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False)

    say(f"Untouched model: {found.base_answer!r} with {num_layers} layers")
    if found.poll is None:
        say(f"Wanted:          {found.answer!r}")
    elif not found.poll.shares:
        say(
            f"None of {len(found.poll.votes)} programs came to the end of an answer: allow more tokens with "
            "--max-new-tokens, or give the answers to choose from with --option."
        )
    else:
        say(
            f"Voted for:       {found.answer!r} with {100 * (found.agreement or 0):.0f} % of the votes of "
            f"{len(found.poll.votes)} programs. No vote knows what is right."
        )
        others = list(found.poll.shares.items())[1:4]
        if others:
            say("Other votes:     " + ", ".join(f"{answer!r} {100 * share:.0f} %" for answer, share in others))
    if not found.verdicts:
        return
    if found.program is None:
        say(f"None of {len(found.verdicts)} chains gives that answer within the budget.")
    else:
        say(f"Chain:           {len(found.program)} layers: {found.program}")
    table = Table(
        title=f"Of {len(found.verdicts)} chains, those that none as short or shorter beats",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    # The margin: how far the logits are from the other verdict.
    for column in ("layers", "gives it", "margin", "chain"):
        table.add_column(column, justify="left" if column == "chain" else "right", overflow="fold")
    for verdict in found.pareto:
        table.add_row(
            str(len(verdict.program)),
            "yes" if verdict.correct else "no",
            f"{verdict.margin:.2f}",
            escape(str(verdict.program)),
        )
    console.print(table)


def _try_task(model: str, task: str, config: AdaptConfig, settings: dict[str, Any], console: Console) -> None:
    from pipeline.adaptation.voting_trial import TrialRequest, check_file, try_adaptation, write
    from pipeline.shards.calibration import read_prior
    from pipeline.tasks import DataRequest

    try:
        questions = DataRequest(
            data=settings["data"], split=settings["split"], limit=settings["limit"], seed=settings["seed"]
        )
    except ValueError as error:
        raise UserError(f"--{error}") from None
    request = TrialRequest(
        model=model,
        task=task,
        questions=questions,
        max_new_tokens=settings["max_new_tokens"],
        config=config,
        prior=None if settings["prior"] is None else read_prior(settings["prior"]),
        resources=resources_of(settings),
    )
    out: AnyPath | None = settings["out"]
    if out is not None:
        check_file(out)
    with interruptible(console, "Stopped; no answers were written."), StepReporter(console) as steps:
        trial = try_adaptation(
            request, announce=lambda line: console.print(line, highlight=False, markup=False), show=steps
        )
    _show_trial(trial, console)
    if out is not None:
        write(trial, out)
        console.print(f"Answers: {out}", highlight=False, markup=False)


def _show_trial(trial: Trial, console: Console) -> None:
    table = Table(
        title=f"Right answers on {len(trial.tried)} questions",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("", "right", "95 % CI", "won/lost", "McNemar p"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for place, score in enumerate(trial.scores):
        low, high = score.interval
        table.add_row(
            score.name + (" *" if score.name == "any vote" else ""),
            f"{100 * score.accuracy:.1f} %",
            f"{100 * low:.1f}–{100 * high:.1f}",
            f"+{score.won}/−{score.lost}" if place else "",
            f"{score.p_value:.2g}" if place else "",
        )
    console.print(table)
    console.print("* Whether any program's answer is right: a ceiling, which knows the answers.", highlight=False)
    lengths = [one.length for one in trial.tried if one.length is not None]
    if lengths:
        mean = sum(lengths) / len(lengths)
        console.print(
            f"For {len(lengths)} questions a chain gives the voted answer within the budget, of {mean:.2f} layers on "
            "average.",
            highlight=False,
        )

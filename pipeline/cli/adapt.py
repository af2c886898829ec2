"""The command ``drllm-pipeline adapt``: layer programs for one prompt, or for the examples of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from pipeline.adaptation.adapt import AdaptConfig, as_example
from pipeline.cli.console import Console
from pipeline.cli.options import LOCATION, interruptible
from pipeline.cli.progress_bar import StepReporter
from pipeline.cli.request_options import RequestCommand, filled, request_options
from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import option_name
from pipeline.search.config import SearchConfig, search_preset
from pipeline.shards.run_config import DEFAULT_CACHE_GIB
from pipeline.storage import AnyPath, without_secrets
from pipeline.tasks import DataRequest, TaskOptions
from pipeline.tasks.prompt_answer import PROMPT_ANSWER

if TYPE_CHECKING:
    from pipeline.adaptation.adapt import Adapted
    from pipeline.adaptation.voting_trial import Trial, TrialRequest


@click.command(
    cls=RequestCommand,
    short_help="Find the layer program that serves one prompt best.",
    help="""Find the layer program that serves one prompt best, with its answer or without.

With --answer, this is the search of CoLa: programs that give the answer, the shortest first. Without --answer, programs
one edit away from the base model vote, each weighted by its margin, and the search uses the answer that wins. The vote
can be wrong; --task adapts to the examples of a task in this way, and reports the accuracy.

\b
Examples:
  drllm-pipeline adapt --model smollm2 --prompt "7 * 8 = 56, 6 * 7 =" --answer 42
  drllm-pipeline adapt --model smollm2 --prompt "The capital of France is" --option Paris --option Rome
  drllm-pipeline adapt --model smollm2 --task arithmetic --split test --limit 200 --simulations 0
""",
)
@click.option("--model", required=True, help="Hub id, local folder, .gguf file, or 'smollm2' (embedded).")
@click.option("--prompt", help="The text to continue, as it is.")
@click.option("--answer", help="The answer that the model should give; leave it out if it is not known.")
@click.option("--option", "options", multiple=True, help="An answer to choose from, by likelihood; several times.")
@click.option("--task", metavar="NAME", help="Instead of --prompt: every example of a task; its answer stays hidden.")
@click.option("--data", help="The task's examples, as for search.")
@click.option("--split", default="test", show_default=True, help="Split of the data, as for search.")
@click.option("--limit", type=int, help="Only the first N examples.")
@request_options(
    TaskOptions,
    match={"unset": "normalized"},
    chat={"help": "Put the prompt, of --prompt or of the task jsonl, into the model's chat template."},
)
@request_options(AdaptConfig, "votes", "seed")
@click.option("--action-space", metavar="NAME", default="cola", show_default=True, help="As for search.")
@request_options(
    SearchConfig,
    "simulations",
    "budget",
    "max_length",
    simulations={"default": None, "unset": "200; drllm: 50", "help": "Programs that are evaluated; 0 for none."},
)
@click.option("--prior", type=LOCATION, metavar="RUN|FILE", help="The prior of another run, as for search.")
@click.option("--max-new-tokens", type=int, help="Most tokens of a written answer.  [default: 32, or the task's own]")
@click.option("--out", type=LOCATION, help="With --task: file of all answers, as JSON.")
@request_options(Resources)
def adapt(
    model: str,
    prompt: str | None,
    answer: str | None,
    options: tuple[str, ...],
    chat: bool,
    task: str | None,
    data: str | None,
    split: str,
    limit: int | None,
    votes: int,
    seed: int,
    action_space: str,
    simulations: int | None,
    budget: float,
    max_length: float,
    prior: AnyPath | None,
    max_new_tokens: int | None,
    out: AnyPath | None,
    **others: Any,
) -> None:
    """Find the layer program that serves one prompt best."""
    resources = filled(Resources, others)
    task_options = filled(TaskOptions, {**others, "chat": chat})
    _refuse_other_options(
        by_prompt=prompt is not None,
        by_task=task is not None,
        of_prompt={
            "--answer": answer is not None,
            "--option": bool(options),
            "--chat": chat and task != PROMPT_ANSWER.name,
        },
        of_task={
            "--data": data is not None,
            **{
                option_name(field): getattr(task_options, field.name) != field.default
                for field in fields(TaskOptions)
                if field.name != "chat"
            },
            "--limit": limit is not None,
            "--out": out is not None,
            "--actors": resources.num_actors is not None,
        },
    )
    chosen = search_preset("default", action_space)
    simulations = chosen.simulations if simulations is None else simulations
    if simulations < 0:
        raise UserError(f"--simulations must not be below 0 (0 looks for no program), got {simulations}")
    config = AdaptConfig(
        search=replace(chosen, budget=budget, max_length=max_length, simulations=max(simulations, 1)),
        look_for_program=simulations > 0,
        votes=votes,
        seed=seed,
    )
    console = Console()
    if prompt is not None:
        _adapt_prompt(
            model,
            prompt,
            answer,
            options,
            chat=chat,
            config=config,
            prior=prior,
            max_new_tokens=max_new_tokens,
            resources=resources,
            console=console,
        )
    else:
        assert task is not None
        try:
            examples = DataRequest(data=data, split=split, limit=limit, seed=seed)
        except ValueError as error:
            raise UserError(f"--{error}") from None
        from pipeline.adaptation.voting_trial import TrialRequest
        from pipeline.shards.calibration import read_prior

        request = TrialRequest(
            model=model,
            task=task,
            data=examples,
            max_new_tokens=max_new_tokens,
            task_options=task_options,
            config=config,
            prior=None if prior is None else read_prior(prior),
            resources=resources,
        )
        _try_task(request, out, console)


def _refuse_other_options(
    *, by_prompt: bool, by_task: bool, of_prompt: Mapping[str, bool], of_task: Mapping[str, bool]
) -> None:
    """Refuse a call with both ``--prompt`` and ``--task``, or with options that go with the other one.

    Raises:
        UserError: There is such an option.
    """
    if by_prompt == by_task:
        raise UserError("give --prompt, or --task for many examples; one of the two")
    refused = [name for name, given in (of_task if by_prompt else of_prompt).items() if given]
    if refused:
        other = "--task" if by_prompt else "--prompt"
        raise UserError(f"{', '.join(refused)} {'goes' if len(refused) == 1 else 'go'} with {other}")


def _adapt_prompt(
    model: str,
    prompt: str,
    answer: str | None,
    options: tuple[str, ...],
    *,
    chat: bool,
    config: AdaptConfig,
    prior: AnyPath | None,
    max_new_tokens: int | None,
    resources: Resources,
    console: Console,
) -> None:
    import transformers

    from pipeline.adaptation.adapt import adapt as run
    from pipeline.engine import FrozenModel
    from pipeline.model_source import resolve_model
    from pipeline.shards.calibration import read_prior

    # Refuse wrong options before a model is loaded.
    as_example(prompt, answer, options)
    try:
        prior_of_run = None if prior is None else read_prior(prior)
        source = resolve_model(model)
    except OSError as error:
        where = without_secrets(str(error.filename or "a file"))
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with interruptible(console, "Stopped; nothing was found yet."), StepReporter(console) as steps:
        frozen = FrozenModel.load(
            source.location,
            device=resources.device,
            dtype=resources.dtype,
            revision=source.hub_revision,
            cache_bytes=int(DEFAULT_CACHE_GIB * (1 << 30)),
        )
        found = run(
            frozen,
            prompt,
            answer,
            options=options,
            chat=chat,
            config=config,
            prior=prior_of_run,
            show=steps,
            **({} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}),
        )
    _show(found, frozen.num_layers, console)


def _show(found: Adapted, num_layers: int, console: Console) -> None:
    console.say(f"Base model:      {found.base_answer!r} with {num_layers} layers")
    if found.poll is None:
        console.say(f"Wanted:          {found.answer!r}")
    elif not found.poll.shares:
        console.say(
            f"None of {len(found.poll.votes)} programs came to the end of an answer: allow more tokens with "
            "--max-new-tokens, or give the answers to choose from with --option."
        )
    else:
        console.say(
            f"Voted for:       {found.answer!r} with {100 * (found.agreement or 0):.0f} % of the votes of "
            f"{len(found.poll.votes)} programs. The vote does not know the right answer."
        )
        others = list(found.poll.shares.items())[1:4]
        if others:
            console.say("Other votes:     " + ", ".join(f"{answer!r} {100 * share:.0f} %" for answer, share in others))
    if not found.verdicts:
        return
    if found.program is None:
        console.say(f"None of {len(found.verdicts)} programs gives that answer within the budget.")
    else:
        console.say(f"Program:         {len(found.program)} layers: {found.program}")
    table = Table(
        title=f"Pareto set of {len(found.verdicts)} programs over length and margin",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    # The margin: how far the logits are from the opposite result.
    for column in ("layers", "gives it", "margin", "program"):
        table.add_column(column, justify="left" if column == "program" else "right", overflow="fold")
    for verdict in found.pareto:
        table.add_row(
            str(len(verdict.program)),
            "yes" if verdict.correct else "no",
            f"{verdict.margin:.2f}",
            escape(str(verdict.program)),
        )
    console.print(table)


def _try_task(request: TrialRequest, out: AnyPath | None, console: Console) -> None:
    from pipeline.adaptation.voting_trial import check_file, try_adaptation, write

    if out is not None:
        check_file(out)
    with interruptible(console, "Stopped; no answers were written."), StepReporter(console) as steps:
        trial = try_adaptation(request, announce=console.say, show=steps)
    _show_trial(trial, console)
    if out is not None:
        write(trial, out)
        console.say(f"Answers: {out}")


def _show_trial(trial: Trial, console: Console) -> None:
    table = Table(
        title=f"Right answers on {len(trial.tried)} examples",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("", "right", "95 % CI", "won/lost", "McNemar p"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for index, score in enumerate(trial.scores):
        low, high = score.interval
        table.add_row(
            score.name + (" *" if score.name == "any vote" else ""),
            f"{100 * score.accuracy:.1f} %",
            f"{100 * low:.1f}–{100 * high:.1f}",
            f"+{score.won}/−{score.lost}" if index else "",
            f"{score.p_value:.2g}" if index else "",
        )
    console.print(table)
    console.say("* An example counts as right if any program's answer is: a ceiling, which knows the answers.")
    lengths = [one.length for one in trial.tried if one.length is not None]
    if lengths:
        mean = sum(lengths) / len(lengths)
        console.say(
            f"For {len(lengths)} examples a program gives the voted answer within the budget, of {mean:.2f} layers on "
            "average."
        )

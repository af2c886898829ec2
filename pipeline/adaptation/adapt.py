"""Adapt the depth to one input: ``pipeline.adapt(model, prompt)``.

If the answer is given, this is CoLa's search (arXiv 2507.07996, section 3), which calls a program a chain of layers: it
looks for the shortest programs that give the answer, and for those of the largest margin. If no answer is given, many
programs vote on it (``voting``), and the search looks for programs that give the voted answer, which may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline.adaptation.voting import NO_ANSWER, Poll, answers, poll, voters
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.action_spaces import get_action_space
from pipeline.search.config import DEFAULTS, NO_PRIOR, SearchConfig
from pipeline.search.group_search import search_group
from pipeline.search.verdicts import Verdict
from pipeline.tasks import DataRequest, Example, Task
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.scoring.exact_match import ExactMatch

if TYPE_CHECKING:
    from pipeline.engine import FrozenModel


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """The settings of an adaptation to one input.

    Raises:
        UserError: A field is out of its range.
    """

    search: SearchConfig = field(default_factory=lambda: DEFAULTS["cola"])
    """The search for a program; by default CoLa's space with 200 simulations."""
    look_for_program: bool = True
    """Whether to search at all; without it, an answer is voted on and no more."""
    votes: int = field(default=32, metadata=option(at_least=1))
    """Programs that vote where no answer is given, the base model among them."""
    seed: int = 0
    """Seed of the voters, the search and examples that a task makes."""
    leaves: int = field(default=8, metadata=option(at_least=1))
    """Programs that are evaluated at once: a single example fills no batch otherwise."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """The result of adapting to one input.

    Attributes:
        answer: The given answer, or the one that won the vote.
        base_answer: The base model's answer.
        poll: The votes; None where the answer was given.
        program: The shortest program that gives the answer, within the budget; None where none was found or looked for.
        verdicts: The verdict on every evaluated program; ``correct`` says whether the program gives the answer.
        pareto: The Pareto set of the verdicts over (length, correctness, margin), shortest first.
    """

    answer: str
    base_answer: str
    poll: Poll | None
    program: LayerProgram | None
    verdicts: list[Verdict]
    pareto: list[Verdict]

    @property
    def agreement(self) -> float | None:
        """The share of the votes that the answer got; None where the answer was given."""
        return None if self.poll is None else self.poll.shares.get(self.answer, 0.0)


def adapt(
    model: FrozenModel,
    prompt: str,
    answer: str | None = None,
    *,
    options: Sequence[str] = (),
    chat: bool = False,
    max_new_tokens: int = 32,
    config: AdaptConfig | None = None,
    prior: Prior | None = None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Adapted:
    """Find the layer program that serves one prompt best.

    Args:
        model: The frozen model.
        prompt: The text to continue, or the user's turn of a chat.
        answer: The answer that the model should give, up to its first line end. None where it is not known: many
            programs then vote, and the answer with the largest share is used instead.
        options: The answers to choose among, by likelihood per character; empty where the model writes freely.
        chat: Whether the prompt goes into the model's chat template.
        max_new_tokens: Most tokens of a written answer.
        config: The settings; None for the defaults.
        prior: A prior fitted on another run of the same model (``pipeline.prior``); None to search without a prior.
        show: Called with the name of the step, the number of programs that are evaluated, and the most that will be.

    Raises:
        ValueError: The prompt is empty or too long for the model, the answer is empty or not one of the options, or
            a setting is out of its range.
    """
    example = as_example(prompt, answer, options)
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    scoring = Choice(per_character=True) if options else ExactMatch(max_new_tokens=max_new_tokens)
    task = Task(name=example.task, summary="", read=_nothing, scoring=scoring, chat=chat, needs_data=False)
    return adapt_example(
        model, task, example, answer_known=answer is not None, config=config or AdaptConfig(), prior=prior, show=show
    )


def adapt_example(
    model: FrozenModel,
    task: Task,
    example: Example,
    *,
    answer_known: bool,
    config: AdaptConfig,
    prior: Prior | None = None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Adapted:
    """Find the layer program that serves one example of a task best.

    Args:
        model: The frozen model.
        task: The task, which makes the example's prompt and scores the responses.
        example: The example.
        answer_known: Whether the example's reference answer may be looked at.
        config: The settings.
        prior: A prior fitted on another run of the same model; None to search without a prior.
        show: Called with the name of the step, the number of programs that are evaluated, and the most that will be.

    Raises:
        UserError: The example does not fit into the model's context, the prior or the budget does not suit the model or
            the search, or programs cannot vote on the task's solutions: they are written at length, no two alike.
    """
    if not answer_known:
        check_votable(task)
    if prior is not None and prior.num_layers != model.num_layers:
        raise UserError(f"the prior is for {prior.num_layers} layers, the model has {model.num_layers}")
    if prior is not None and not get_action_space(config.search.action_space).keeps_order:
        raise UserError(NO_PRIOR.format(space=config.search.action_space))
    if not LayerProgram((0,), model.num_layers).within(config.search.budget):
        raise UserError(
            f"a budget of {config.search.budget:g} allows less than one of the model's {model.num_layers} layers"
        )
    model.forget()
    _check_room(model, task, example)
    if answer_known:
        votes, answer = None, example.answer
        [base_answer] = answers(model, task, example, [LayerProgram.identity(model.num_layers)])
    else:
        votes = poll(model, task, example, voters(model.num_layers, config.votes, config.seed))
        base_answer, answer = votes.base.response, votes.answer
    no_vote_counts = votes is not None and not votes.shares
    if not config.look_for_program or not answer or no_vote_counts:
        return Adapted(answer=answer, base_answer=base_answer, poll=votes, program=None, verdicts=[], pareto=[])
    wanted = example if answer_known else replace(example, answer=answer, also_accepted=())
    prepared = task.prepare(wanted, model.tokenizer)
    tried = 0

    def count(programs: int) -> None:
        nonlocal tried
        tried += programs
        show("programs tried", tried, config.search.simulations + 1)

    [searched] = search_group(
        [prepared],
        num_layers=model.num_layers,
        config=config,
        score=partial(task.score, model),
        prior=prior,
        on_step=count,
    )
    best = searched.tree.best()
    return Adapted(
        answer=answer,
        base_answer=base_answer,
        poll=votes,
        program=None if best is None else best.program,
        verdicts=list(searched.tree.verdicts.values()),
        pareto=searched.tree.pareto(),
    )


def as_example(prompt: str, answer: str | None, options: Sequence[str]) -> Example:
    """An example with a prompt, as a task would read it.

    Raises:
        UserError: The prompt, the answer or the options cannot be used.
    """
    if isinstance(options, str):
        raise UserError("options are a list of texts: put one text into brackets")
    if not prompt:
        raise UserError("the prompt is empty")
    if options and (len(set(options)) < 2 or len(set(options)) < len(options) or not all(map(str.strip, options))):
        raise UserError(f"options must be two or more different texts, got {list(options)}")
    if answer is not None:
        answer = answer if options else answer.strip()
        if not answer:
            raise UserError("the answer is empty; leave it out if it is not known")
        if "\n" in answer and not options:
            raise UserError("the answer has several lines; only the first line of a response is compared")
        if options and answer not in options:
            raise UserError(f"the answer {answer!r} is not one of the options: {', '.join(map(repr, options))}")
    return Example(id="prompt", task="adapt", question=prompt, answer=answer or "", options=tuple(options))


def check_votable(task: Task) -> None:
    """Refuse a task whose answers programs cannot vote on.

    Raises:
        UserError: The task's solutions are written at length.
    """
    if not task.scoring.answers_compare:
        raise UserError(
            f"task {task.name!r} has solutions that are written at length, no two alike: programs cannot vote on them"
        )


def _check_room(model: FrozenModel, task: Task, example: Example) -> None:
    prepared = task.prepare(example if example.answer else replace(example, answer=NO_ANSWER), model.tokenizer)
    needed = task.tokens(prepared)
    if not prepared.prompt_ids:
        raise UserError("the prompt has no tokens")
    if needed > model.context_length:
        raise UserError(
            f"the prompt needs {needed} tokens with its answer, the model reads {model.context_length}; shorten it, or "
            "allow fewer new tokens"
        )


def _nothing(request: DataRequest) -> list[Example]:
    raise AssertionError("a task of one prompt reads no data set")

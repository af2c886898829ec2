"""A trial of voting on examples with known answers: is the voted answer right more often than the base model's?

Reference answers are compared only at the end. Ray actors collect the votes, a few examples at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.adaptation.adapt import AdaptConfig, adapt_example, check_votable
from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import Resources, check_output, joined_cluster
from pipeline.distributed.installation import Installation
from pipeline.distributed.model_actor import ModelActor
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.prior import Prior
from pipeline.significance import bootstrap_interval, mcnemar
from pipeline.storage import AnyPath, write_whole
from pipeline.tasks import DataRequest, Example, Task, TaskOptions, get_task, read_or_explain
from pipeline.tasks.matching import Match, matches
from pipeline.tasks.prompt_answer import PROMPT_ANSWER
from pipeline.tasks.task_options import DEFAULT_MATCH

#: Examples that an actor gets at once.
GROUP = 4


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """The request of ``drllm-pipeline adapt --task``."""

    model: str
    """Model name, folder or hub id."""
    task: str
    """Name of the task."""
    data: DataRequest
    """The task's examples to adapt to."""
    max_new_tokens: int | None = None
    """Most tokens of a written answer; None for the task's own default."""
    task_options: TaskOptions = field(default_factory=TaskOptions)
    """Columns, prompt and comparison of the rows of the task jsonl."""
    config: AdaptConfig = field(default_factory=AdaptConfig)
    """Settings of the adaptation to each example."""
    prior: Prior | None = None
    """Prior of the searches; None for searches without one."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors."""


@dataclass(frozen=True, kw_only=True)
class TriedExample:
    """The result on one example.

    Attributes:
        example_id: Id of the example.
        reference: The reference answer.
        also_accepted: Other answers that are right too.
        base_answer: The base model's answer.
        answer: The answer that won the vote.
        agreement: The share of the votes that this answer got.
        among_votes: Whether any vote was for an accepted answer.
        length: Length of the program that was found for the answer; None where none was found.
    """

    example_id: str
    reference: str
    base_answer: str
    answer: str
    agreement: float
    among_votes: bool
    length: int | None
    also_accepted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Score:
    """The accuracy of one way to answer, compared with the base model.

    Attributes:
        name: Name of the way to answer.
        accuracy: Share of right answers.
        interval: The 95 % bootstrap interval of the accuracy.
        lost: Examples that only the base model gets right.
        won: Examples that only this way gets right.
        p_value: The p-value of McNemar's exact test against the base model.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    lost: int
    won: int
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The outcome of a trial.

    Attributes:
        tried: The result on every example.
        scores: The accuracy of the base model, of the vote, and of an oracle that picks a right vote where there is
            one: a ceiling.
    """

    tried: list[TriedExample]
    scores: list[Score]


class AdaptingActor(ModelActor):
    """The Ray actor of a trial."""

    def __init__(
        self,
        source: ModelSource,
        task: str,
        max_new_tokens: int | None,
        task_options: TaskOptions,
        config: AdaptConfig,
        prior: Prior | None,
        device: str,
        dtype: str,
        threads: int,
    ) -> None:
        super().__init__(source, device=device, dtype=dtype, threads=threads)
        self._task = _voting_task(task, max_new_tokens, task_options)
        self._match = _match_of(task, task_options)
        self._config, self._prior = config, prior

    def load(self) -> Installation:
        """Load the model, and return the actor's installation.

        Raises:
            UserError: The model cannot be loaded, or the task needs a chat template and the model has none.
        """
        loaded: Installation = super().load()
        self._task.check_tokenizer(self._model.tokenizer)
        return loaded

    def work(self, examples: Sequence[Example]) -> list[TriedExample]:
        """Adapt to examples without looking at their reference answers."""
        self._begin()
        return [self._try(example) for example in examples]

    def _try(self, example: Example) -> TriedExample:
        found = adapt_example(
            self._model, self._task, example, answer_known=False, config=self._config, prior=self._prior
        )
        assert found.poll is not None
        return TriedExample(
            example_id=example.id,
            reference=example.answer,
            base_answer=found.base_answer,
            answer=found.answer,
            agreement=found.agreement or 0.0,
            among_votes=any(matches(self._match, vote.response, example.references) for vote in found.poll.votes),
            length=None if found.program is None else len(found.program),
            also_accepted=example.also_accepted,
        )


def try_adaptation(
    request: TrialRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Trial:
    """Adapt to every example of a data set, and compare the answers with the references at the end.

    Args:
        request: The trial's request.
        announce: Called with a line about what comes next.
        show: Called with what is being done, how much of it is done, and the total.

    Raises:
        UserError: The request is wrong, or an example does not fit into the model's context.
    """
    task = _voting_task(request.task, request.max_new_tokens, request.task_options)
    check_votable(task)
    examples = read_or_explain(task, request.data)
    source = resolve_model(request.model)
    with joined_cluster(request.resources, source) as placement:
        announce(
            f"{len(examples)} examples of {request.task}, up to {request.config.votes} votes each; "
            f"{placement.describe()}."
        )
        arguments = (
            source,
            request.task,
            request.max_new_tokens,
            request.task_options,
            request.config,
            request.prior,
            placement.device,
            placement.dtype,
            placement.pool.cpus_per_actor,
        )
        pool: ActorPool[tuple[Example, ...]] = ActorPool(AdaptingActor, arguments, placement.pool)
        groups = [tuple(examples[start : start + GROUP]) for start in range(0, len(examples), GROUP)]
        answered: dict[str, TriedExample] = {}
        with pool:
            for _, some in pool.map(groups):
                answered.update((tried.example_id, tried) for tried in some)
                show("examples adapted to", len(answered), len(examples))
    match = _match_of(request.task, request.task_options)
    return judge([answered[example.id] for example in examples], match)


def _voting_task(name: str, max_new_tokens: int | None, options: TaskOptions) -> Task:
    """The task as programs vote on it: votes are counted, and programs searched for, by an answer's very text."""
    if name == PROMPT_ANSWER.name:
        options = replace(options, match="exact")
    return get_task(name, max_new_tokens=max_new_tokens, options=options)


def _match_of(task: str, options: TaskOptions) -> Match:
    """The rule that says at the end whether an answer is right."""
    return (options.match or DEFAULT_MATCH) if task == PROMPT_ANSWER.name else "exact"


def judge(tried: list[TriedExample], match: Match = "exact") -> Trial:
    """Compare answers with the reference answers, by a rule."""

    def is_right(answer: str, one: TriedExample) -> bool:
        return matches(match, answer, (one.reference, *one.also_accepted))

    base = [is_right(one.base_answer, one) for one in tried]
    ways = {
        "base model": base,
        "voted": [is_right(one.answer, one) for one in tried],
        "any vote": [one.among_votes for one in tried],
    }
    scores = []
    for name, right in ways.items():
        lost, won, p_value = mcnemar(base, right)
        scores.append(
            Score(
                name=name,
                accuracy=float(np.mean(right)),
                interval=bootstrap_interval(right),
                lost=lost,
                won=won,
                p_value=p_value,
            )
        )
    return Trial(tried=tried, scores=scores)


def check_file(file: AnyPath) -> None:
    """Refuse a file that could not be written at the end.

    Raises:
        UserError: The file is a folder, or cannot be made.
    """
    check_output(file)
    if not isinstance(file, Path):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from None


def write(trial: Trial, file: AnyPath) -> None:
    """Write every answer and the scores as JSON.

    Raises:
        UserError: The file cannot be written.
    """
    content: dict[str, Any] = asdict(trial)
    try:
        write_whole(file, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from None

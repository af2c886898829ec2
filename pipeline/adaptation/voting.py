"""An answer that nobody knows, from what many programs say: a reward that needs no gold.

Programs one edit away from the untouched model answer too, mostly alike. Each one's vote counts by how sure it is
of its own answer: the margin by which the logits prefer it. What gets most votes is taken for the answer.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.program import LayerProgram
from pipeline.search.actions import drllm
from pipeline.tasks import Example, Outcome, Task

if TYPE_CHECKING:
    from pipeline.engine import FrozenModel

#: Stands where a task wants a reference answer and there is none.
NO_ANSWER = "?"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """One program's answer, with its weight.

    Attributes:
        program: The program.
        response: Its answer.
        margin: By how much its logits prefer that answer; 0 for an empty one, and below 0 for one that the limit on new
            tokens cuts: it may go on.
    """

    program: LayerProgram
    response: str
    margin: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Poll:
    """All votes on one question.

    Attributes:
        votes: Every program's vote, the base model's first.
        shares: The share of the votes that each answer gets, the most agreed-on first; empty where nobody answers.
    """

    votes: list[Vote]
    shares: dict[str, float]

    @property
    def base(self) -> Vote:
        """The base model's vote."""
        return self.votes[0]

    @property
    def answer(self) -> str:
        """The answer with most votes; the base model's where there are no votes."""
        return next(iter(self.shares), self.base.response)


def voters(num_layers: int, number: int, seed: int) -> list[LayerProgram]:
    """The untouched model, and programs one edit of Dr.LLM's away from it, drawn without repetition.

    Args:
        num_layers: Depth L of the model.
        number: Programs in all, at least 1; fewer where there are no more edits.
        seed: Of the draw.
    """
    identity = LayerProgram.identity(num_layers)
    edits = [edit.program for edit in drllm(identity, num_layers + 1)]
    # Text seeds are hashed the same way by every Python.
    random.Random(f"voters {seed}").shuffle(edits)
    return [identity, *edits[: number - 1]]


def poll(model: FrozenModel, task: Task, example: Example, programs: Sequence[LayerProgram]) -> Poll:
    """Ask programs a question whose answer is not known.

    Args:
        model: The model.
        task: How it is asked; one whose answers compare to the letter, or are chosen among options.
        example: The question; its answer is not looked at.
        programs: Who votes, the untouched model first.
    """
    responses = answers(model, task, example, programs)
    by_response: dict[str, list[LayerProgram]] = defaultdict(list)
    for program, response in zip(programs, responses):
        by_response[response].append(program)
    margins: dict[LayerProgram, float] = {}
    for response, agreeing in by_response.items():
        if response:
            asked = _outcomes(model, task, replace(example, answer=response), agreeing)
            margins.update(zip(agreeing, (outcome.margin for outcome in asked)))
    votes = [
        Vote(program=program, response=response, margin=margins.get(program, 0.0))
        for program, response in zip(programs, responses)
    ]
    return Poll(votes=votes, shares=_shares(votes))


def answers(model: FrozenModel, task: Task, example: Example, programs: Sequence[LayerProgram]) -> list[str]:
    """What programs answer to a question; its own answer is not looked at."""
    blind = replace(example, answer=example.options[0] if example.options else NO_ANSWER)
    return [outcome.response or "" for outcome in _outcomes(model, task, blind, programs)]


def _outcomes(model: FrozenModel, task: Task, example: Example, programs: Sequence[LayerProgram]) -> list[Outcome]:
    question = task.prepare(example, model.tokenizer)
    return task.score(model, [question] * len(programs), programs, need_response=True)


def _shares(votes: Sequence[Vote]) -> dict[str, float]:
    """The answers' shares of the votes; a vote weighs its margin, and of equals the first one leads."""
    totals: dict[str, float] = {}
    for vote in votes:
        if vote.response and math.isfinite(vote.margin) and vote.margin > 0:
            totals[vote.response] = totals.get(vote.response, 0.0) + vote.margin
    whole = sum(totals.values())
    return {answer: total / whole for answer, total in sorted(totals.items(), key=lambda item: -item[1])}

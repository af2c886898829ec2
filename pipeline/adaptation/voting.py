"""A vote of many programs on an answer that is not known.

The voters are the base model and programs one edit away from it, which mostly answer alike. A vote weighs its margin:
how far the logits prefer the program's own answer. The answer with the largest share of the votes wins.
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

#: Placeholder where a task needs a reference answer and there is none.
NO_ANSWER = "?"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """One program's answer, with the weight of its vote.

    Attributes:
        program: The program.
        response: The program's answer.
        margin: Preference of the program's logits for that answer. 0 for an empty answer; below 0 for one that the
            limit on new tokens cuts, because it may go on.
    """

    program: LayerProgram
    response: str
    margin: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Poll:
    """All votes on one example.

    Attributes:
        votes: Every program's vote, the base model's first.
        shares: The share of the votes that each answer gets, the largest first; empty where no vote counts.
    """

    votes: list[Vote]
    shares: dict[str, float]

    @property
    def base(self) -> Vote:
        """The base model's vote."""
        return self.votes[0]

    @property
    def answer(self) -> str:
        """The answer with the largest share; the base model's where no vote counts."""
        return next(iter(self.shares), self.base.response)


def voters(num_layers: int, number: int, seed: int) -> list[LayerProgram]:
    """The identity program, and programs one edit of Dr.LLM's away from it, drawn without repetition.

    Args:
        num_layers: Depth L of the model.
        number: Number of programs, at least 1; there are fewer where there are no more edits.
        seed: Seed of the draw.
    """
    identity = LayerProgram.identity(num_layers)
    edits = [edit.program for edit in drllm(identity, num_layers + 1)]
    # Seeds that are text are hashed alike by every version of Python.
    random.Random(f"voters {seed}").shuffle(edits)
    return [identity, *edits[: number - 1]]


def poll(model: FrozenModel, task: Task, example: Example, programs: Sequence[LayerProgram]) -> Poll:
    """Let programs vote on an example whose answer is not known.

    Args:
        model: The model.
        task: The example's task; its answers are compared verbatim, or chosen among options.
        example: The example; its accepted answers are not looked at.
        programs: The programs that vote, the identity program first.
    """
    responses = answers(model, task, example, programs)
    by_response: dict[str, list[LayerProgram]] = defaultdict(list)
    for program, response in zip(programs, responses):
        by_response[response].append(program)
    margins: dict[LayerProgram, float] = {}
    for response, agreeing in by_response.items():
        if response:
            outcomes = _outcomes(model, task, replace(example, answer=response, also_accepted=()), agreeing)
            margins.update(zip(agreeing, (outcome.margin for outcome in outcomes)))
    votes = [
        Vote(program=program, response=response, margin=margins.get(program, 0.0))
        for program, response in zip(programs, responses)
    ]
    return Poll(votes=votes, shares=_shares(votes))


def answers(model: FrozenModel, task: Task, example: Example, programs: Sequence[LayerProgram]) -> list[str]:
    """The programs' answers to an example, whose accepted answers are not looked at."""
    blind = replace(example, answer=example.options[0] if example.options else NO_ANSWER, also_accepted=())
    return [outcome.response or "" for outcome in _outcomes(model, task, blind, programs)]


def _outcomes(model: FrozenModel, task: Task, example: Example, programs: Sequence[LayerProgram]) -> list[Outcome]:
    prepared = task.prepare(example, model.tokenizer)
    return task.score(model, [prepared] * len(programs), programs, need_response=True)


def _shares(votes: Sequence[Vote]) -> dict[str, float]:
    """The share of the votes of each answer. A vote weighs its margin; of equal shares, the first answer's leads."""
    totals: dict[str, float] = {}
    for vote in votes:
        if vote.response and math.isfinite(vote.margin) and vote.margin > 0:
            totals[vote.response] = totals.get(vote.response, 0.0) + vote.margin
    whole = sum(totals.values())
    return {answer: total / whole for answer, total in sorted(totals.items(), key=lambda item: -item[1])}

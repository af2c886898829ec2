"""Labels that questions share: a few programs, run on every question, and the one that each should expect most of.

The programs that a search finds for a question are right there, often by luck; a router that learns them learns the
luck. Here the programs that are right on most questions make a menu, which is run on all of them, wrong or right; a
question's label is the program of the menu whose chance of being right, as far as other questions like it tell
(``router.expectation``), is highest. A question on which nothing was found has a label too.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.program import LayerProgram
from pipeline.tasks import Example
from router.expectation import leave_one_out
from router.labels import Labelled, sayable

#: Programs that are tried on some questions, and how many of each search for the menu there are.
CANDIDATES, SCREENING_QUESTIONS = 32, 128
#: Programs of the menu, the untouched model among them.
MENU = 8

Array = np.ndarray[Any, Any]


#: From questions and programs to whether each program is right on each question, ``[questions, programs]``.
Judge = Callable[[Sequence[Example], Sequence[LayerProgram]], Array]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What one search left, and somebody who runs further programs on its questions.

    Attributes:
        rows: Its rows.
        examples: Its questions, those that have rows.
        judge: Runs programs on them.
    """

    rows: pd.DataFrame
    examples: Sequence[Example]
    judge: Judge

    @property
    def untouched(self) -> list[Labelled]:
        """Its questions, each with the untouched model as its label."""
        depth = int(self.rows.num_layers.iloc[0])
        prompts = self.rows.groupby("example_id").prompt.first()
        return [
            Labelled(example_id=example.id, task=example.task, prompt=str(prompts[example.id]), counts=(1,) * depth)
            for example in self.examples
        ]


@dataclass(frozen=True, kw_only=True)
class Menu:
    """What one search's questions are expected to be best served by.

    Attributes:
        programs: The menu; the untouched model is the first.
        rows: A label for each question.
        right: Share of the questions on which their labels are right.
        base_right: The same of the untouched model.
        layers: Mean layers of the labels.
    """

    programs: list[LayerProgram]
    rows: list[Labelled]
    right: float
    base_right: float
    layers: float


def expected_labels(
    searched: Searched, *, summaries: Callable[[Sequence[Labelled]], Array], layer_price: float = 0.0
) -> Menu:
    """Give every question of a search the label that it should expect most of.

    Args:
        searched: The search.
        summaries: What the untouched model makes of prompts, ``[N, …]``; see ``router.expectation.summarize``.
        layer_price: Share of right answers that a layer is worth.

    Returns:
        The labels, in the order of the questions.
    """
    untouched = searched.untouched
    identity = untouched[0].program
    menu = choose_menu(_candidates(searched.rows, identity), searched.examples, searched.judge)
    right = searched.judge(searched.examples, menu)
    chosen = expected_choice(right, menu, summaries(untouched), layer_price=layer_price)
    return Menu(
        programs=menu,
        rows=[relabelled(row, menu[choice]) for row, choice in zip(untouched, chosen)],
        right=float(right[np.arange(len(right)), chosen].mean()),
        base_right=float(right[:, 0].mean()),
        layers=float(np.mean([len(menu[choice]) for choice in chosen])),
    )


def expected_choice(
    right: Array, programs: Sequence[LayerProgram], summaries: Array, *, layer_price: float
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each question the program that it should expect most of, as far as questions like it tell.

    Args:
        right: Whether each program is right on each question, ``[N, M]``; the first one is the untouched model.
        programs: They.
        summaries: What the untouched model makes of the questions' prompts, ``[N, …]``.
        layer_price: Share of right answers that a layer is worth.

    Returns:
        Numbers of programs, ``[N]``.
    """
    verdicts = right.astype(np.float64)
    # What is to be gained over the untouched model differs less by chance than what is right.
    gain = leave_one_out(summaries, verdicts - verdicts[:, :1])
    return np.asarray((gain + layer_price * np.array([program.saved_layers for program in programs])).argmax(1))


def relabelled(row: Labelled, program: LayerProgram) -> Labelled:
    """The same question with another label."""
    return replace(row, counts=_counts(program))


def choose_menu(candidates: Sequence[LayerProgram], examples: Sequence[Example], judge: Judge) -> list[LayerProgram]:
    """Those of the candidates that are right on most of some questions; the first of them stays in any case."""
    some = list(examples)
    random.Random("screening questions").shuffle(some)
    right = judge(some[:SCREENING_QUESTIONS], candidates).sum(0)
    order = sorted(range(1, len(candidates)), key=lambda place: (-right[place], len(candidates[place]), place))
    return [candidates[0], *(candidates[place] for place in order[: MENU - 1])]


def _candidates(rows: pd.DataFrame, identity: LayerProgram) -> list[LayerProgram]:
    """The untouched model, and the programs that were found right most often."""
    found = rows[rows.correct & (rows["rank"] > 0)]
    counted: Counter[tuple[int, ...]] = Counter(tuple(map(int, counts)) for counts in found.counts if sayable(counts))
    counted.pop(_counts(identity), None)
    ranked = sorted(counted, key=lambda counts: (-counted[counts], sum(counts), counts))
    return [identity, *map(LayerProgram.from_counts, ranked[: CANDIDATES - 1])]


def _counts(program: LayerProgram) -> tuple[int, ...]:
    assert program.counts is not None
    return program.counts

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
from dataclasses import dataclass
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
    rows: pd.DataFrame,
    examples: Sequence[Example],
    *,
    judge: Judge,
    summaries: Callable[[Sequence[Labelled]], Array],
    layer_price: float = 0.0,
) -> Menu:
    """Give every question of a search the label that it should expect most of.

    Args:
        rows: The search's rows.
        examples: Its questions, those that have rows.
        judge: Runs programs on them.
        summaries: What the untouched model makes of prompts, ``[N, …]``; see ``router.expectation.summarize``.
        layer_price: Share of right answers that a layer is worth.

    Returns:
        The labels, in the order of the questions.
    """
    depth = int(rows.num_layers.iloc[0])
    identity = LayerProgram.identity(depth)
    menu = choose_menu(_candidates(rows, identity), examples, judge)
    prompts = rows.groupby("example_id").prompt.first()
    untouched = [
        Labelled(example_id=example.id, task=example.task, prompt=str(prompts[example.id]), counts=(1,) * depth)
        for example in examples
    ]
    right = judge(examples, menu).astype(np.float64)
    # What is to be gained over the untouched model differs less by chance than what is right.
    gain = leave_one_out(summaries(untouched), right - right[:, :1])
    saved = np.array([program.saved_layers for program in menu])
    chosen = (gain + layer_price * saved).argmax(1)
    labels = [
        Labelled(example_id=row.example_id, task=row.task, prompt=row.prompt, counts=_counts(menu[choice]))
        for row, choice in zip(untouched, chosen)
    ]
    return Menu(
        programs=menu,
        rows=labels,
        right=float(right[np.arange(len(right)), chosen].mean()),
        base_right=float(right[:, 0].mean()),
        layers=float(depth - saved[chosen].mean()),
    )


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

"""Labels that questions share: a few programs, run on every question, and the one that each should expect most of.

The programs that a search finds for a question are right there, often by luck; a router that learns them learns the
luck. Here the programs that are right on most questions make a menu, which is run on all of them, wrong or right; a
question's label is the program of the menu whose chance of being right, as far as other questions like it tell
(``router.menu.ridge``), is highest. A question on which nothing was found has a label too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.program import LayerProgram
from router.labels.labelled import Labelled
from router.menu.candidates import SearchedRun, candidate_programs, choose_menu, counts_of
from router.menu.ridge import leave_one_out

Array = np.ndarray[Any, Any]


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
    searched: SearchedRun, *, summaries: Callable[[Sequence[Labelled]], Array], layer_price: float = 0.0
) -> Menu:
    """Give every question of a search the label that it should expect most of.

    Args:
        searched: The search.
        summaries: What the untouched model makes of prompts, ``[N, …]``; see ``router.menu.ridge.summarize``.
        layer_price: Share of right answers that a layer is worth.

    Returns:
        The labels, in the order of the questions.
    """
    untouched = searched.untouched
    identity = untouched[0].program
    menu = choose_menu(candidate_programs(searched.rows, identity), searched.examples, searched.judge)
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
    return replace(row, counts=counts_of(program))

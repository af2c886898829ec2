"""Labels that examples share: a candidate set is run on all examples, and each gets the program to expect most of.

The programs that a search finds for an example are right there, often by luck; a router that learns them learns the
luck. Here the programs that are right on most examples make a candidate set, which is run on all of them. An example's
label is the candidate with the highest predicted value: its probability of being right, predicted by leave-one-out
ridge regression from the base model's hidden states (``router.menu.ridge``), plus the price of the layers that it
saves. An example without a right program has a label too. Outcomes on held-out examples decide nothing, neither the
candidates nor the weights.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router.labels.labelled import Labelled
from router.menu.candidates import (
    LabelService,
    SearchedRun,
    choose_candidates,
    counts_of,
    frequent_programs,
    screening_examples,
)
from router.menu.ridge import RidgeSolver, principal_components

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ExpectedLabels:
    """The labels of one run's examples.

    Attributes:
        candidates: The candidate set; the identity program is the first.
        rows: A label for each example.
        right: Share of the examples on which their labels are right.
        base_right: Share of the examples on which the base model is right.
        layers: Mean layers of the labels.
    """

    candidates: list[LayerProgram]
    rows: list[Labelled]
    right: float
    base_right: float
    layers: float


def expected_labels(
    run: SearchedRun,
    service: LabelService,
    *,
    num_windows: int,
    layer_price: float = 0.0,
    held_out: Set[str] = frozenset(),
) -> ExpectedLabels:
    """Label every example of a run with the candidate of the highest predicted value.

    Args:
        run: The run.
        service: Runs programs on the examples, and reads their prompts.
        num_windows: Windows of a prompt that its summary is made of.
        layer_price: Price of a layer, in right answers an example.
        held_out: Prompts of held-out examples.

    Returns:
        The labels, in the order of the examples.

    Raises:
        UserError: Too few examples are not held out.
    """
    base_labels = run.base_labels
    known = np.array([row.prompt not in held_out for row in base_labels])
    if known.sum() < 2:
        raise UserError(
            f"{run.run} has {known.sum()} examples that are not held out, of {len(known)}: too few to predict one from "
            "the others; leave it out, hold out fewer with --held-out, or train with --labels consensus"
        )
    candidates, right = candidate_set(run, service, held_out=held_out)
    summaries = service.summaries(base_labels, num_windows=num_windows)
    chosen = expected_choice(right, candidates, summaries, known=known, layer_price=layer_price)
    return ExpectedLabels(
        candidates=candidates,
        rows=[relabelled(row, candidates[choice]) for row, choice in zip(base_labels, chosen)],
        right=float(right[np.arange(len(right)), chosen].mean()),
        base_right=float(right[:, 0].mean()),
        layers=float(np.mean([len(candidates[choice]) for choice in chosen])),
    )


def candidate_set(
    run: SearchedRun, service: LabelService, *, held_out: Set[str] = frozenset()
) -> tuple[list[LayerProgram], Array]:
    """The candidate set of a run, the identity program first, and whether each is right on each example, ``[N, M]``."""
    screened = frequent_programs(run.rows[~run.rows.prompt.isin(held_out)], run.base_labels[0].program)
    training = [one for one in run.examples if one.prompt not in held_out]
    candidates = choose_candidates(screened, service.verdicts(run, screening_examples(training), screened))
    return candidates, service.verdicts(run, run.examples, candidates)


def expected_choice(
    right: Array, programs: Sequence[LayerProgram], summaries: Array, *, known: Array, layer_price: float
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each example the program with the highest predicted value.

    Args:
        right: Whether each program is right on each example, ``[N, M]``; the first is the identity program.
        programs: The M programs.
        summaries: Summaries of the base model's hidden states on the prompts, ``[N, …]``.
        known: Whether an example's outcomes count, bool ``[N]``: its own never do in its own prediction.
        layer_price: Price of a layer, in right answers an example.

    Returns:
        Indices of programs, ``[N]``.
    """
    outcomes = right.astype(np.float64)
    # Gains over the base model vary less by chance than the outcomes themselves.
    gain, inputs = outcomes - outcomes[:, :1], summaries.reshape(len(summaries), -1)
    found = principal_components(inputs[known])
    fitted = RidgeSolver(found.scores).fit(gain[known])
    gain[known], gain[~known] = fitted.left_out, fitted.predict(found.of(inputs[~known]))
    return np.asarray((gain + layer_price * np.array([program.saved_layers for program in programs])).argmax(1))


def relabelled(row: Labelled, program: LayerProgram) -> Labelled:
    """A copy of an example with another label."""
    return replace(row, counts=counts_of(program))

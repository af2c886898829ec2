"""How deep questions need to go: the label of the probe that steers depth, and the program of each class.

Three classes or more: a short program of at most so many layers will do; the untouched model is needed; it is wrong
and a correction is not. What may run begins with the untouched first layers, whose states are what the probe sees.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from router.labels.labelled import Labelled, sayable
from router.menu.candidates import SCREENING_QUESTIONS, SearchedRun
from router.menu.expected_labels import expected_choice, relabelled

SHORT, FULL, CORRECTION = "short", "full", "correction"
#: Programs among which that of a class is chosen.
_CANDIDATES = 16

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class ExitLabels:
    """What questions need, and what is run for them.

    Attributes:
        programs: Each class's program: the short ones by their length, the untouched model, the correction.
        rows: A label for each question, one of those programs.
        worth: For each class its questions' mean worth of each program, ``[C, C]``: right answers, and what the layers
            that it saves are worth.
        left_out: Questions without a label.
        right: Share of the labelled questions on which their labels are right.
        base_right: The same of the untouched model.
        layers: Mean layers of the labels.
    """

    programs: dict[str, LayerProgram]
    rows: list[Labelled]
    worth: Array
    left_out: dict[str, int]
    right: float
    base_right: float
    layers: float


def exit_labels(
    searched: Sequence[SearchedRun],
    *,
    early: int,
    shares: Sequence[float],
    choice: str,
    summaries: Callable[[Sequence[Labelled]], Array],
    layer_price: float = 0.0,
) -> ExitLabels:
    """Choose the classes' programs and say which of them every question needs.

    Args:
        searched: The searches; a question of two of them counts once.
        early: Layers before the exit.
        shares: For each short class the most layers, as a fraction of the depth.
        choice: ``expected`` for the program that a question should expect most of, as far as questions like it tell;
            ``shortest`` for its own verdicts: the first class that is right, the untouched model before a correction.
        summaries: What the untouched model makes of prompts; see ``router.menu.ridge.summarize``.
        layer_price: Share of right answers that a layer is worth.

    Raises:
        UserError: The searches found no short program that begins with the untouched layers.
    """
    untouched, places = _questions(searched)
    identity = untouched[0].program
    base_right = _judged(searched, places, [identity])[:, 0]
    found = [_found(one, early) for one in searched]
    programs = _class_programs(searched, found, identity, shares=shares, early=early)
    names, chosen_from = list(programs), list(programs.values())
    right = _judged(searched, places, chosen_from)
    if choice == "expected":
        # The untouched model first: what is gained is gained over it.
        order = sorted(range(len(names)), key=lambda place: names[place] != FULL)
        chosen = np.array(order)[
            expected_choice(
                right[:, order], [chosen_from[place] for place in order], summaries(untouched), layer_price=layer_price
            )
        ]
    else:
        chosen = np.where(right.any(1), right.argmax(1), -1)
    kept = (chosen >= 0).nonzero()[0]
    rows = [relabelled(untouched[place], chosen_from[chosen[place]]) for place in kept]
    return ExitLabels(
        programs=programs,
        rows=rows,
        worth=_worth(right[kept], chosen[kept], chosen_from, layer_price=layer_price),
        left_out={"no class is right": len(chosen) - len(kept)} if len(kept) < len(chosen) else {},
        right=float(right[kept, chosen[kept]].mean()) if len(kept) else 0.0,
        base_right=float(base_right[kept].mean()) if len(kept) else 0.0,
        layers=float(np.mean([sum(row.counts) for row in rows])) if rows else 0.0,
    )


def _worth(right: Array, labels: Array, programs: Sequence[LayerProgram], *, layer_price: float) -> Array:
    """What each program is worth to each class's questions on average, ``[C, C]``; alike to a class that nobody has."""
    saved = layer_price * np.array([program.saved_layers for program in programs])
    means = [
        right[labels == one].mean(0) if (labels == one).any() else np.zeros(len(programs))
        for one in range(len(programs))
    ]
    return np.array(means) + saved


def short_names(shares: Sequence[float]) -> list[str]:
    """What the short classes are called, the shortest first."""
    return [SHORT if len(shares) == 1 else f"{SHORT} {share:g}" for share in sorted(shares)]


def _questions(searched: Sequence[SearchedRun]) -> tuple[list[Labelled], list[tuple[int, int]]]:
    """All questions once, and where each is: its search, and its place there."""
    found: dict[tuple[str, str], tuple[Labelled, tuple[int, int]]] = {}
    for number, one in enumerate(searched):
        for place, row in enumerate(one.untouched):
            found.setdefault((row.example_id, row.prompt), (row, (number, place)))
    return [row for row, _ in found.values()], [place for _, place in found.values()]


def _judged(
    searched: Sequence[SearchedRun], places: Sequence[tuple[int, int]], programs: Sequence[LayerProgram]
) -> Array:
    """Whether programs are right on the questions at some places, ``[N, M]``."""
    verdicts = np.zeros((len(places), len(programs)), dtype=bool)
    for number, one in enumerate(searched):
        mine = [row for row, (of, _) in enumerate(places) if of == number]
        if mine:
            verdicts[mine] = one.judge([one.examples[places[row][1]] for row in mine], programs)
    return verdicts


def _found(searched: SearchedRun, early: int) -> dict[str, list[tuple[int, ...]]]:
    """For each question its right programs, with the layers before the exit as in the untouched model."""
    right = searched.rows[searched.rows.correct & (searched.rows["rank"] > 0)]
    found: dict[str, list[tuple[int, ...]]] = {}
    for example_id, counts in zip(right.example_id, right.counts):
        if sayable(counts):
            found.setdefault(str(example_id), []).append((1,) * early + tuple(map(int, counts[early:])))
    return found


def _class_programs(
    searched: Sequence[SearchedRun],
    found: Sequence[dict[str, list[tuple[int, ...]]]],
    identity: LayerProgram,
    *,
    shares: Sequence[float],
    early: int,
) -> dict[str, LayerProgram]:
    """Each class's program: of those that were found most often, the one that is right on most screening questions.

    A correction is judged by the questions on which the untouched model is wrong.
    """
    places = []
    for number, one in enumerate(searched):
        some = list(range(len(one.examples)))
        random.Random("screening questions").shuffle(some)
        places += [(number, place) for place in some[:SCREENING_QUESTIONS]]
    wrong = ~_judged(searched, places, [identity])[:, 0]
    anywhere = Counter(counts for of_run in found for programs in of_run.values() for counts in programs)
    missed = [
        found[number].get(searched[number].examples[place].id, [])
        for (number, place), is_wrong in zip(places, wrong)
        if is_wrong
    ]
    on_missed = Counter(counts for programs in missed for counts in programs)
    depth = identity.num_layers
    programs: dict[str, LayerProgram] = {}

    def best(name: str, counted: Counter[tuple[int, ...]], most: int, where: Array) -> None:
        taken = {program.counts for program in programs.values()} | {identity.counts}
        fitting = [counts for counts in counted if 0 < sum(counts) <= most and counts not in taken]
        ranked = sorted(fitting, key=lambda counts: (-counted[counts], sum(counts), counts))[:_CANDIDATES]
        if ranked:
            candidates = [LayerProgram.from_counts(counts) for counts in ranked]
            right = _judged(searched, places, candidates)
            on_class, in_all = right[where].sum(0), right.sum(0)
            order = sorted(
                range(len(ranked)), key=lambda place: (-on_class[place], -in_all[place], len(candidates[place]), place)
            )
            programs[name] = candidates[order[0]]

    everywhere = np.ones(len(places), dtype=bool)
    for name, share in zip(short_names(shares), sorted(shares)):
        most = int(share * depth + 1e-9)
        best(name, anywhere, most, everywhere)
        if name not in programs:
            raise UserError(
                f"the searches found no program of at most {most} layers beside the first {early}, which run always; "
                "give a larger --short or a smaller --early, or search with more --simulations"
            )
    programs[FULL] = identity
    if wrong.any():
        best(CORRECTION, on_missed, 2 * depth, wrong)
    return programs

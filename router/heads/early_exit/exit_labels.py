"""The classes of an early exit: the program of each class, and the class that each example needs.

Three classes or more: a short program, within a limit of layers, suffices; the base model is needed; the base model is
wrong and a correction is right. Every class's program begins with each of the first layers once: those run before the
probe decides.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import UserError
from pipeline.program import LayerProgram, whole_layers
from router.labels.labelled import Labelled, expressible_as_counts
from router.menu.candidates import SCREENING_EXAMPLES, LabelService, SearchedRun
from router.menu.expected_labels import expected_choice, relabelled

SHORT, FULL, CORRECTION = "short", "full", "correction"
#: Programs among which that of a class is chosen.
_NUM_SCREENED = 16

Array = np.ndarray[Any, Any]
#: How often a program runs each layer.
Counts = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ExitLabels:
    """The classes of an early exit, and a label for each example.

    Attributes:
        programs: Each class's program: the short ones by their length, the identity program, the correction.
        rows: A label for each example, one of those programs.
        worth: The mean value of each program on the examples of each class, ``[C, C]``: the share of right answers,
            plus the price of the layers that the program saves.
        left_out: Number of examples without a label, by the reason.
        right: Share of the labelled examples on which their labels are right.
        base_right: Share of the labelled examples on which the base model is right.
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
    runs: Sequence[SearchedRun],
    service: LabelService,
    *,
    early: int,
    shares: Sequence[float],
    choice: str,
    num_windows: int,
    layer_price: float = 0.0,
    held_out: Set[str] = frozenset(),
) -> ExitLabels:
    """Choose the classes' programs, and the class of every example.

    Args:
        runs: The searched runs; an example of two of them counts once.
        service: Runs programs on the examples, and reads their prompts.
        early: Layers before the exit.
        shares: For each short class the most layers, as a fraction of the depth.
        choice: ``expected`` for the program with the highest predicted value; ``shortest`` for the first class whose
            program is right on the example, the base model before a correction.
        num_windows: Windows of a prompt that its summary is made of.
        layer_price: Price of a layer, in right answers an example.
        held_out: Prompts of held-out examples, whose outcomes decide nothing.

    Raises:
        UserError: Too few examples are not held out, or the searches found no short program that begins with each of
            the first layers once.
    """
    base_labels, positions = _all_examples(runs)
    known = np.array([row.prompt not in held_out for row in base_labels])
    if known.sum() < 2:
        raise UserError(
            f"{known.sum()} examples are not held out, of {len(known)}: too few to predict one from the others; search "
            "more of them, or hold out fewer with --held-out"
        )
    identity = base_labels[0].program
    base_right = _verdicts(runs, positions, [identity], service)[:, 0]
    programs = _class_programs(runs, service, identity, shares=shares, early=early, held_out=held_out)
    names, chosen_from = list(programs), list(programs.values())
    right = _verdicts(runs, positions, chosen_from, service)
    if choice == "expected":
        # The identity program first: gains are predicted over it.
        order = sorted(range(len(names)), key=lambda index: names[index] != FULL)
        summaries = service.summaries(base_labels, num_windows=num_windows)
        of_order = expected_choice(
            right[:, order],
            [chosen_from[index] for index in order],
            summaries,
            known=known,
            layer_price=layer_price,
        )
        chosen = np.array(order)[of_order]
    else:
        chosen = np.where(right.any(1), right.argmax(1), -1)
    kept = (chosen >= 0).nonzero()[0]
    counted = ((chosen >= 0) & known).nonzero()[0]
    rows = [relabelled(base_labels[index], chosen_from[chosen[index]]) for index in kept]
    return ExitLabels(
        programs=programs,
        rows=rows,
        worth=_worth(right[counted], chosen[counted], chosen_from, layer_price=layer_price),
        left_out={"no class is right": len(chosen) - len(kept)} if len(kept) < len(chosen) else {},
        right=float(right[kept, chosen[kept]].mean()) if len(kept) else 0.0,
        base_right=float(base_right[kept].mean()) if len(kept) else 0.0,
        layers=float(np.mean([sum(row.counts) for row in rows])) if rows else 0.0,
    )


def _worth(right: Array, labels: Array, programs: Sequence[LayerProgram], *, layer_price: float) -> Array:
    """The mean value of each program on each class's examples, ``[C, C]``.

    For a class without examples it is the price of the saved layers alone.
    """
    saved = layer_price * np.array([program.saved_layers for program in programs])
    means = [
        right[labels == one].mean(0) if (labels == one).any() else np.zeros(len(programs))
        for one in range(len(programs))
    ]
    return np.array(means) + saved


def short_names(shares: Sequence[float]) -> list[str]:
    """Names of the short classes, the shortest first."""
    return [SHORT if len(shares) == 1 else f"{SHORT} {share:g}" for share in sorted(shares)]


class _Position(NamedTuple):
    """The position of an example: the index of its run, and its index there."""

    run: int
    example: int


def _all_examples(runs: Sequence[SearchedRun]) -> tuple[list[Labelled], list[_Position]]:
    """All examples once, labelled with the identity program, and the position of each."""
    found: dict[tuple[str, str], tuple[Labelled, _Position]] = {}
    for run_index, run in enumerate(runs):
        for example_index, row in enumerate(run.base_labels):
            found.setdefault((row.example_id, row.prompt), (row, _Position(run_index, example_index)))
    return [row for row, _ in found.values()], [position for _, position in found.values()]


def _verdicts(
    runs: Sequence[SearchedRun],
    positions: Sequence[_Position],
    programs: Sequence[LayerProgram],
    service: LabelService,
) -> Array:
    """Whether programs are right on the examples at some positions, ``[N, M]``."""
    verdicts = np.zeros((len(positions), len(programs)), dtype=bool)
    for run_index, run in enumerate(runs):
        of_run = [row for row, position in enumerate(positions) if position.run == run_index]
        if of_run:
            examples = [run.examples[positions[row].example] for row in of_run]
            verdicts[of_run] = service.verdicts(run, examples, programs)
    return verdicts


def _found_programs(run: SearchedRun, early: int, held_out: Set[str]) -> dict[str, list[Counts]]:
    """For each example its right programs, with each of the layers before the exit run once."""
    right = run.rows[run.rows.correct & (run.rows["rank"] > 0) & ~run.rows.prompt.isin(held_out)]
    found: dict[str, list[Counts]] = {}
    for example_id, counts in zip(right.example_id, right.counts):
        if expressible_as_counts(counts):
            found.setdefault(str(example_id), []).append((1,) * early + tuple(map(int, counts[early:])))
    return found


def _screening_positions(runs: Sequence[SearchedRun], held_out: Set[str]) -> list[_Position]:
    """The examples that screen the classes' programs; the same ones each time."""
    positions = []
    for run_index, run in enumerate(runs):
        indices = [index for index, one in enumerate(run.examples) if one.prompt not in held_out]
        random.Random("screening questions").shuffle(indices)
        positions += [_Position(run_index, index) for index in indices[:SCREENING_EXAMPLES]]
    return positions


def _class_programs(
    runs: Sequence[SearchedRun],
    service: LabelService,
    identity: LayerProgram,
    *,
    shares: Sequence[float],
    early: int,
    held_out: Set[str],
) -> dict[str, LayerProgram]:
    """Each class's program: of those that were found most often, the one that is right on most screening examples.

    A correction is chosen by the examples on which the base model is wrong.
    """
    found = [_found_programs(run, early, held_out) for run in runs]
    positions = _screening_positions(runs, held_out)
    base_wrong = ~_verdicts(runs, positions, [identity], service)[:, 0]
    everywhere = Counter(counts for of_run in found for of_example in of_run.values() for counts in of_example)
    where_wrong = Counter(
        counts
        for position, is_wrong in zip(positions, base_wrong)
        if is_wrong
        for counts in found[position.run].get(runs[position.run].examples[position.example].id, [])
    )
    depth = identity.num_layers
    taken = {identity.counts}
    programs: dict[str, LayerProgram] = {}
    for name, share in zip(short_names(shares), sorted(shares)):
        most = whole_layers(share, depth)
        screened = _most_frequent(everywhere, most=most, taken=taken)
        if not screened:
            raise UserError(
                f"the searches found no program of at most {most} layers beside the first {early}, which run always; "
                "give a larger --short or a smaller --early, or search with more --simulations"
            )
        right = _verdicts(runs, positions, screened, service)
        programs[name] = _best(screened, right, right.sum(0))
        taken.add(programs[name].counts)
    programs[FULL] = identity
    corrections = _most_frequent(where_wrong, most=2 * depth, taken=taken)
    if corrections:
        right = _verdicts(runs, positions, corrections, service)
        programs[CORRECTION] = _best(corrections, right, right[base_wrong].sum(0))
    return programs


def _most_frequent(found: Counter[Counts], *, most: int, taken: set[Counts | None]) -> list[LayerProgram]:
    """The programs that were found most often, within a limit of layers, and in no other class."""
    fitting = [counts for counts in found if 0 < sum(counts) <= most and counts not in taken]
    ranked = sorted(fitting, key=lambda counts: (-found[counts], sum(counts), counts))[:_NUM_SCREENED]
    return [LayerProgram.from_counts(counts) for counts in ranked]


def _best(programs: Sequence[LayerProgram], right: Array, right_in_class: Array) -> LayerProgram:
    """The program with the most right examples of its class, then of all, then the shortest."""
    in_all = right.sum(0)
    return programs[
        min(
            range(len(programs)),
            key=lambda index: (-right_in_class[index], -in_all[index], len(programs[index]), index),
        )
    ]

"""The validation of a selector on the examples of its menu: nested cross-validation, beside its baselines.

Every part of a selector (weights, penalty, caution, exit) is fitted on four fifths of the examples and judged on the
last, five times; so are the static program and the neighbours. No example is judged by what it was fitted on. An
example's fold follows from its prompt, so that no prompt is in two folds. The menu's own programs were chosen on most
of its examples: figures are of the others, which the menu held out.

Shapes: N examples, M programs, F inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.significance import interval_of_shares, mcnemar
from router.heads.selector.choice import MenuChoice
from router.heads.selector.fit import FittedSelector, SeenOutcomes, best_caution, fit_at_best_exit, value_of
from router.menu.label_scores import LabelScores
from router.menu.ridge import RidgeSolver, principal_components

Array = np.ndarray[Any, Any]

FOLDS = 5
#: Neighbours that are tried.
NEIGHBOURS_TRIED = (5, 10, 25, 50, 100, 200)
BASE, STATIC, STATIC_BY_KIND = "base", "best static program", "best static program of each kind *"
SELECTOR, NEIGHBOURS, RANDOM, ORACLE = "selector", "nearest neighbours", "random choice", "oracle *"
#: Where all examples have the same labels: no layer program, but the labels' own baselines.
CALIBRATED, LABEL_PROBE = "base, bias removed", "label probe"


@dataclass(frozen=True, kw_only=True)
class Validated:
    """One method's result on the left-out folds.

    Attributes:
        method: Name of the method.
        right: Share of right answers.
        low: Lower end of its 95 % interval.
        high: Upper end.
        layers: Mean layers.
        gain: Right answers more than the base model's, as a share of all; it may be negative.
        gain_low: Lower end of its 95 % interval.
        gain_high: Upper end.
        won: Examples that only this method gets right, and not the base model.
        lost: Examples that only the base model gets right.
        p_value: p-value of McNemar's exact test against the base model; None for a random choice.
        p_static: The same against the best static program.
    """

    method: str
    right: float
    low: float
    high: float
    layers: float
    gain: float
    gain_low: float
    gain_high: float
    won: int
    lost: int
    p_value: float | None
    p_static: float | None

    def value(self, layer_price: float) -> float:
        """Right answers an example, less the price of the layers."""
        return self.right - layer_price * self.layers


def folds_of(prompts: Sequence[str], *, seed: int = 0) -> Array:
    """The fold of each example, by its prompt, ``[N]``.

    Raises:
        UserError: A fold has too few examples.
    """
    digests = (hashlib.sha256(f"fold {seed} {prompt}".encode()).digest() for prompt in prompts)
    folds = np.array([int.from_bytes(digest[:8]) % FOLDS for digest in digests])
    if min(np.bincount(folds, minlength=FOLDS)) < 2:
        raise UserError(
            f"{len(prompts)} examples are too few for {FOLDS} folds: a selector could not be told from luck; make a "
            "menu of more examples"
        )
    return folds


def validate(
    inputs: Mapping[int, Array],
    right: Array,
    programs: Sequence[LayerProgram],
    folds: Array,
    *,
    judged: Array,
    kinds: Sequence[str],
    layer_price: float,
    label_scores: LabelScores | None = None,
    seen: SeenOutcomes | None = None,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> list[Validated]:
    """Judge a selector and its baselines on left-out folds.

    Args:
        inputs: By the exit, the inputs of each example, ``[N, F]``.
        right: Right answers, ``[N, M]``; the first program is the identity program.
        programs: The programs.
        folds: The fold of each example, ``[N]``.
        judged: Whether figures are of an example, bool ``[N]``: those that the menu held out.
        kinds: Kind of each example, for the static program of each kind.
        layer_price: Price of a layer, in right answers an example.
        label_scores: The labels, where all examples have the same ones.
        seen: Outcomes after deployment, on other examples; the selector of every fold knows them.
        show: Receives the number of folds that are done, and of how many.

    Returns:
        The methods, the base model first. Those with a star know more than a router can: the kind, or the answers.
    """
    methods = (STATIC, NEIGHBOURS, SELECTOR, STATIC_BY_KIND)
    chosen = {method: np.zeros(len(right), dtype=np.int64) for method in methods}
    names = np.array(kinds)
    latest, said = max(inputs), np.zeros(len(right))
    for fold in range(FOLDS):
        here, there = folds == fold, folds != fold
        train = right[there]
        chosen[STATIC][here] = _static(programs, train, layer_price)
        for name in sorted(set(kinds)):
            of_kind = there & (names == name)
            place = _static(programs, right[of_kind] if of_kind.any() else train, layer_price)
            chosen[STATIC_BY_KIND][here & (names == name)] = place
        fitted = fit_at_best_exit(
            {at: of_exit[there] for at, of_exit in inputs.items()},
            train,
            programs,
            layer_price=layer_price,
            seen=seen,
        )
        asked = inputs[fitted.exit][here]
        chosen[SELECTOR][here] = fitted.choose(asked)
        chosen[NEIGHBOURS][here] = _by_neighbours(fitted, train, asked, programs, layer_price)
        if label_scores is not None:
            said[here] = _label_probe(inputs[latest][there], label_scores.right[there], inputs[latest][here])
        show(fold + 1, FOLDS)
    lengths, every = np.array([len(program) for program in programs]), np.arange(len(right))
    found = {BASE: (right[:, 0], float(lengths[0]))}
    found |= {
        method: (right[every, places], float(lengths[places][judged].mean())) for method, places in chosen.items()
    }
    found[RANDOM] = (right.mean(1), float(lengths.mean()))
    best = np.where(right >= right.max(1, keepdims=True), -lengths, -np.inf).argmax(1)
    found[ORACLE] = (right[every, best], float(lengths[best][judged].mean()))
    if label_scores is not None:
        found[CALIBRATED] = (label_scores.calibrated().astype(np.float64), float(lengths[0]))
        found[LABEL_PROBE] = ((said == label_scores.right).astype(np.float64), float(latest))
    order = (BASE, STATIC, NEIGHBOURS, SELECTOR, RANDOM, CALIBRATED, LABEL_PROBE, STATIC_BY_KIND, ORACLE)
    base, static_right = right[judged, 0], found[STATIC][0][judged]
    return [
        _validated(method, found[method][0][judged], found[method][1], base, static_right)
        for method in order
        if method in found
    ]


def gap_closed(validated: Sequence[Validated]) -> float:
    """The share of the gap between the best static program and the oracle that the selector closes."""
    right = {one.method: one.right for one in validated}
    gap = right[ORACLE] - right[STATIC]
    return (right[SELECTOR] - right[STATIC]) / gap if gap > 0 else 0.0


def _static(programs: Sequence[LayerProgram], right: Array, layer_price: float) -> int:
    return MenuChoice.of(programs, right, caution=0.0, layer_price=layer_price).best_static


def _label_probe(known: Array, labels: Array, asked: Array) -> Array:
    """The label that least squares on the inputs of training examples says of others, ``[N]``."""
    found = principal_components(known)
    fitted = RidgeSolver(found.scores).fit(np.eye(int(labels.max()) + 1)[labels])
    return np.asarray(fitted.predict(found.of(asked)).argmax(1))


def _by_neighbours(
    fitted: FittedSelector, right: Array, asked: Array, programs: Sequence[LayerProgram], layer_price: float
) -> Array:
    """Places of the programs that are right on most of an example's nearest neighbours among the training examples.

    The number of neighbours, and the caution, are those that would have paid on the training examples.
    """
    known = fitted.components.scores
    of_places, behind = right[:, fitted.places], [programs[place] for place in fitted.places]
    among = _without_self(_nearest(known, known, max(NEIGHBOURS_TRIED) + 1))
    best: tuple[float, int, MenuChoice] | None = None
    for number in NEIGHBOURS_TRIED:
        if number >= len(known):
            break
        chances = of_places[among[:, :number]].mean(1)
        choice = best_caution(chances, of_places, behind, layer_price=layer_price)
        value = value_of(choice, choice.choose(chances), of_places)
        if best is None or value > best[0]:
            best = value, number, choice
    if best is None:
        return np.full(len(asked), _static(programs, right, layer_price))
    _, number, choice = best
    to_asked = _nearest(fitted.components.of(asked), known, number)
    return np.asarray(fitted.places[choice.choose(of_places[to_asked].mean(1))])


def _without_self(among: Array) -> Array:
    """Neighbours ``[N, K + 1]`` of known points without the points themselves, ``[N, K]``."""
    own = among == np.arange(len(among))[:, None]
    own[:, -1] |= ~own.any(1)  # twins of an example may stand before it
    return np.asarray(among[~own].reshape(len(among), -1))


def _nearest(points: Array, known: Array, number: int) -> Array:
    """Indices of the nearest known points, the nearest first, ``[N, number]``."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(number, len(known))).fit(known)
    return np.asarray(search.kneighbors(points, return_distance=False))


def _validated(method: str, right: Array, layers: float, base: Array, static: Array) -> Validated:
    low, high = interval_of_shares(right.tolist())
    gain_low, gain_high = interval_of_shares((right - base).tolist())
    # A test of paired answers needs answers that are right or wrong: a random choice has neither.
    whole, of_base, of_static = ((one >= 1).tolist() for one in (right, base, static))
    lost, won, p_value = (0, 0, None) if method == RANDOM else mcnemar(of_base, whole)
    return Validated(
        method=method,
        right=float(right.mean()),
        low=low,
        high=high,
        layers=layers,
        gain=float((right - base).mean()),
        gain_low=gain_low,
        gain_high=gain_high,
        won=won,
        lost=lost,
        p_value=p_value,
        p_static=None if method == RANDOM else mcnemar(of_static, whole)[2],
    )

"""The fit of a selector: its exit, its chances, and the caution that would have paid on left-out examples.

A selector reads the states in front of its *exit*, which a program must not have changed: a late exit sees more, and
leaves fewer programs to choose from.

Shapes: N examples, M programs of the menu, K of them behind the exit, F inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.program import LayerProgram
from router.heads.selector.beliefs import Beliefs
from router.heads.selector.chances import fit_chances
from router.heads.selector.choice import MenuChoice
from router.menu.ridge import PrincipalComponents, principal_components

Array = np.ndarray[Any, Any]

#: Most landmarks; more cost time by their cube.
LANDMARKS = 4096
#: Most landmarks where exits are compared.
_FEW_LANDMARKS = 512
#: Values of the caution that are tried, in right answers an example; the last one never leaves the static program.
CAUTIONS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 2.0)


@dataclass(frozen=True, kw_only=True)
class SeenOutcomes:
    """Outcomes of a menu's programs after deployment, one program an example; S of them.

    Attributes:
        inputs: By the exit, the inputs of each example, ``[S, F]``.
        places: Place in the menu of the program that ran, ``[S]``.
        outcomes: Right answers, or scores from 0 to 1, ``[S]``.
    """

    inputs: Mapping[int, Array]
    places: Array
    outcomes: Array

    def of_programs(self, places: Sequence[int]) -> SeenOutcomes:
        """Those of the programs at some places, which become 0, 1, and so on."""
        index = {place: new for new, place in enumerate(places)}
        kept = np.array([place in index for place in self.places], dtype=bool)
        return SeenOutcomes(
            inputs={at: of_exit[kept] for at, of_exit in self.inputs.items()},
            places=np.array([index[place] for place in self.places[kept]], dtype=np.int64),
            outcomes=self.outcomes[kept],
        )

    def added_to(self, beliefs: Beliefs, *, at: int) -> Beliefs:
        """Beliefs from the inputs of an exit, after these outcomes."""
        return beliefs.updated(self.inputs[at], self.places, self.outcomes) if len(self.places) else beliefs


@dataclass(frozen=True, kw_only=True)
class FittedSelector:
    """A fitted selector.

    Attributes:
        exit: Layers that run before the choice.
        places: Places in the menu of the programs behind the exit, ``[K]``.
        beliefs: From inputs to chances, and how sure they are.
        choice: The rule of the choice among them.
        left_out: Predicted chances of each training example, from all other examples, ``[N, K]``.
        value: Mean value of the programs that are chosen by these predictions.
        components: The principal components of the inputs, which baselines share.
    """

    exit: int
    places: Array
    beliefs: Beliefs
    choice: MenuChoice
    left_out: Array
    value: float
    components: PrincipalComponents

    def choose(self, inputs: Array) -> Array:
        """Places in the menu of the programs for further examples, ``[N, F]`` to ``[N]``."""
        return np.asarray(self.places[self.choice.choose(self.beliefs.chances(inputs))])


def fit_at_best_exit(
    inputs: Mapping[int, Array],
    right: Array,
    programs: Sequence[LayerProgram],
    *,
    layer_price: float,
    seen: SeenOutcomes | None = None,
) -> FittedSelector:
    """The selector at the exit where left-out examples are worth most; of equally good ones the earliest.

    Args:
        inputs: By the exit, the inputs of each example, ``[N, F]``.
        right: Right answers, ``[N, M]``; the first program is the identity program.
        programs: The programs of the menu.
        layer_price: Price of a layer, in right answers an example.
        seen: Outcomes after deployment; None where there are none.
    """

    def fit(at: int, num_landmarks: int) -> FittedSelector:
        return fit_selector(
            inputs[at], right, programs, at=at, layer_price=layer_price, seen=seen, num_landmarks=num_landmarks
        )

    if len(inputs) == 1:
        return fit(next(iter(inputs)), LANDMARKS)
    best = max((fit(at, _FEW_LANDMARKS) for at in sorted(inputs)), key=lambda one: (one.value, -one.exit))
    return best if len(right) <= _FEW_LANDMARKS else fit(best.exit, LANDMARKS)


def fit_selector(
    inputs: Array,
    right: Array,
    programs: Sequence[LayerProgram],
    *,
    at: int,
    layer_price: float,
    seen: SeenOutcomes | None = None,
    num_landmarks: int = LANDMARKS,
) -> FittedSelector:
    """Fit a selector on the outcomes of a menu.

    Args:
        inputs: Inputs of each example at the exit, ``[N, F]``.
        right: Right answers, ``[N, M]``; the first program is the identity program.
        programs: The programs of the menu.
        at: Layers that run before the choice.
        layer_price: Price of a layer, in right answers an example.
        seen: Outcomes after deployment; None where there are none.
        num_landmarks: Most training examples to which others are compared.
    """
    places = places_behind(programs, at)
    of_places, behind = right[:, places], [programs[place] for place in places]
    found = principal_components(inputs)
    fitted = fit_chances(found, of_places, num_landmarks=num_landmarks)
    beliefs, left_out = fitted.beliefs, fitted.left_out
    if seen is not None:
        before = beliefs.chances(inputs)
        beliefs = seen.of_programs(places).added_to(beliefs, at=at)
        left_out = left_out + beliefs.chances(inputs) - before
    choice = best_caution(left_out, of_places, behind, layer_price=layer_price)
    return FittedSelector(
        exit=at,
        places=np.array(places),
        beliefs=beliefs,
        choice=choice,
        left_out=left_out,
        value=value_of(choice, choice.choose(left_out), of_places),
        components=found,
    )


def places_behind(programs: Sequence[LayerProgram], at: int) -> list[int]:
    """Places of the programs that begin with the first ``at`` layers, each once, and go on with a later one."""
    return [
        place
        for place, program in enumerate(programs)
        if program.layers[:at] == tuple(range(at)) and (len(program) == at or program.layers[at] >= at)
    ]


def best_caution(chances: Array, right: Array, programs: Sequence[LayerProgram], *, layer_price: float) -> MenuChoice:
    """The rule whose caution would have paid most, by predictions that leave each example's own outcomes out.

    Of equally good ones the most cautious.
    """
    rules = [MenuChoice.of(programs, right, caution=caution, layer_price=layer_price) for caution in CAUTIONS]
    return max(rules, key=lambda rule: (value_of(rule, rule.choose(chances), right), rule.caution))


def value_of(rule: MenuChoice, chosen: Array, right: Array) -> float:
    """The mean value of chosen programs: right answers, less the price of their layers."""
    return float((right[np.arange(len(right)), chosen] - rule.layer_price * rule.lengths[chosen]).mean())

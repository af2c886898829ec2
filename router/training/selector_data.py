"""The data of a selector's training: a menu with its prompts' states at each exit, folds, and outcomes of use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.tasks.arithmetic_kinds import kind_of
from router.heads.selector.feedback import Feedback, read_feedback
from router.heads.selector.fit import FittedSelector, SeenOutcomes, fit_at_best_exit, places_behind
from router.heads.selector.selector_request import SelectorRequest
from router.heads.selector.validation import Validated, folds_of, validate
from router.menu.label_scores import LabelScores, read_label_scores
from router.menu.menu import Menu
from router.training.menu_data import MenuData, prompt_inputs, read_menu_data, service_of_menu
from router.training.model_service import FrozenModelService

Array = np.ndarray[Any, Any]

#: Most exits that are tried: each costs a fit in every fold.
MOST_EXITS = 8


@dataclass(frozen=True, kw_only=True)
class SelectorData(MenuData):
    """The data of a selector's training; N examples, M programs.

    Attributes:
        inputs: By the exit, the inputs of each example, ``[N, F]``.
        folds: The fold of each example, ``[N]``.
        label_scores: The labels, where all examples have the same ones.
        seen: Outcomes after deployment; None where there are none.
        seen_prompts: Their prompts.
    """

    inputs: Mapping[int, Array]
    folds: Array
    label_scores: LabelScores | None
    seen: SeenOutcomes | None
    seen_prompts: Sequence[str] = ()

    def validate(
        self, *, layer_price: float, show: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Validated]:
        """Judge a selector and its baselines on left-out folds; see ``router.heads.selector.validation``."""
        kinds = [kind_of(example) or task for example, task in zip(self.rows.example_id, self.rows.task, strict=True)]
        return validate(
            self.inputs,
            self.right,
            self.programs,
            self.folds,
            judged=self.judged,
            kinds=kinds,
            layer_price=layer_price,
            label_scores=self.label_scores,
            seen=self.seen,
            show=show,
        )

    def fit(self, *, layer_price: float) -> FittedSelector:
        """The selector that all examples give."""
        return fit_at_best_exit(self.inputs, self.right, self.programs, layer_price=layer_price, seen=self.seen)

    def of(self, examples: Array, programs: Sequence[int]) -> SelectorData:
        """The data of some examples, bool ``[N]``, and of the programs at some places."""
        scores = self.label_scores
        return replace(
            self,
            rows=self.rows[examples],
            programs=[self.programs[place] for place in programs],
            right=self.right[examples][:, list(programs)],
            inputs={at: of_exit[examples] for at, of_exit in self.inputs.items()},
            folds=self.folds[examples],
            judged=self.judged[examples],
            label_scores=scores and replace(scores, right=scores.right[examples], scores=scores.scores[examples]),
            seen=self.seen and self.seen.of_programs(programs),
        )


def read_selector_data(
    request: SelectorRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> SelectorData:
    """Read a menu, and its prompts' states; those that are not kept are computed on Ray.

    Args:
        request: The training.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.

    Raises:
        UserError: Something in the request, or in the menu, is wrong.
    """
    data = read_menu_data(request.menu)
    prompts, scores = list(data.rows.prompt), read_label_scores(request.menu)
    exits = exits_of(request, data.programs)
    folds = folds_of(prompts, seed=request.seed)
    feedback = _feedback(request, data.programs, data.rows, announce)
    with service_of_menu(data.menu, request, announce=announce, show=show) as service:
        inputs = prompt_inputs(service, data.menu, prompts, exits)
        seen = _seen(service, data.menu, feedback, data.programs, exits)
    return SelectorData(
        **vars(data),
        inputs=inputs,
        folds=folds,
        label_scores=scores,
        seen=seen,
        seen_prompts=[one.prompt for one in feedback],
    )


def exits_of(request: SelectorRequest, programs: Sequence[LayerProgram]) -> list[int]:
    """The exits that are tried, ascending: those with a program to choose beside the identity program.

    An early exit leaves more programs to choose from, and of two exits with the same programs the later one sees more.
    So for each set of programs its latest exit is tried, within the first half of the layers.

    Raises:
        UserError: No exit has a program to choose, or the one that is asked for has none.
    """
    depth = programs[0].num_layers
    if request.exit is None:
        last = max(1, depth // 2)
        behind = {at: places_behind(programs, at) for at in range(1, last + 2)}
        wanted = [at for at in range(1, last + 1) if at == last or behind[at] != behind[at + 1]]
    else:
        wanted = [request.exit]
    found = [at for at in wanted if at < depth and len(places_behind(programs, at)) > 1]
    if not found:
        raise UserError(
            f"no program of {request.menu} leaves the first {request.exit or 1} of {depth} layers as they are: there "
            "is nothing to choose; give a smaller --exit, or a menu with more programs"
        )
    spread = np.linspace(0, len(found) - 1, min(len(found), MOST_EXITS)).round().astype(int)
    return [found[place] for place in spread]


def _feedback(
    request: SelectorRequest, programs: Sequence[LayerProgram], rows: pd.DataFrame, announce: Callable[[str], None]
) -> list[Feedback]:
    """The outcomes of the menu's programs on prompts that are no examples of the menu, which validate."""
    if request.feedback is None:
        return []
    read = read_feedback(request.feedback, num_layers=programs[0].num_layers)
    known, of_menu = set(rows.prompt), set(programs)
    other = [one for one in read if one.program not in of_menu]
    again = [one for one in read if one.program in of_menu and one.prompt in known]
    kept = [one for one in read if one.program in of_menu and one.prompt not in known]
    announce(
        f"{len(kept)} outcomes of {request.feedback}; left out, of programs that are not in the menu: {len(other)}; "
        f"of prompts that are examples of the menu: {len(again)}."
    )
    return kept


def _seen(
    service: FrozenModelService,
    menu: Menu,
    feedback: Sequence[Feedback],
    programs: Sequence[LayerProgram],
    exits: Sequence[int],
) -> SeenOutcomes | None:
    if not feedback:
        return None
    return SeenOutcomes(
        inputs=prompt_inputs(service, menu, [one.prompt for one in feedback], exits),
        places=np.array([programs.index(one.program) for one in feedback]),
        outcomes=np.array([one.score for one in feedback]),
    )

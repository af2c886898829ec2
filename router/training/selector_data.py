"""The data of a selector's training: its menu's outcomes, and the first layers' states of its prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath
from pipeline.tasks.arithmetic_kinds import kind_of
from pipeline.tasks.prompting import is_day
from router.artifact.base_model import BaseModelRef, lasting_name, text_fingerprint
from router.features.prompt_template import PromptTemplate
from router.heads.head import Head
from router.heads.selector.feedback import Feedback, read_feedback
from router.heads.selector.fit import FittedSelector, SeenOutcomes, fit_at_best_exit, places_behind
from router.heads.selector.selector_head import SELECTIONS, depths_of
from router.heads.selector.selector_request import SelectorRequest
from router.heads.selector.validation import Validated, folds_of, validate
from router.labels.labelled import Labelled
from router.menu.example_table import read_menu_examples
from router.menu.label_scores import LabelScores, read_label_scores
from router.menu.matrix import read_matrix
from router.menu.menu import Menu, read_menu
from router.routed.checkpoint import Router
from router.training.model_service import FrozenModelService

Array = np.ndarray[Any, Any]

#: Exits that are tried, as fractions of the depth.
_EXITS = (1 / 6, 1 / 4, 1 / 3, 1 / 2)


@dataclass(frozen=True, kw_only=True)
class SelectorData:
    """The data of a selector's training; N examples, M programs.

    Attributes:
        menu: The menu.
        rows: Its examples, in the order of the race.
        programs: Its programs, the identity program first.
        right: Right answers, ``[N, M]``.
        inputs: By the exit, the inputs of each example, ``[N, F]``.
        folds: The fold of each example, ``[N]``.
        judged: Whether figures are of an example, bool ``[N]``: those that the menu held out.
        label_scores: The labels, where all examples have the same ones.
        seen: Outcomes after deployment; None where there are none.
    """

    menu: Menu
    rows: pd.DataFrame
    programs: list[LayerProgram]
    right: Array
    inputs: Mapping[int, Array]
    folds: Array
    judged: Array
    label_scores: LabelScores | None
    seen: SeenOutcomes | None

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
    menu, rows = read_menu(request.menu), read_menu_examples(request.menu)
    programs = [one.program for one in menu.programs]
    right = right_answers(request.menu, programs, len(rows))
    exits = exits_of(request, programs)
    folds = folds_of(list(rows.prompt), seed=request.seed)
    feedback = _feedback(request, programs, rows, announce)
    with _service(request, menu, announce, show) as service:
        inputs = _inputs(service, menu, list(rows.prompt), exits)
        seen = _seen(service, menu, feedback, programs, exits)
    return SelectorData(
        menu=menu,
        rows=rows,
        programs=programs,
        right=right,
        inputs=inputs,
        folds=folds,
        judged=np.arange(len(rows)) >= len(rows) - menu.settings.num_held_out,
        label_scores=read_label_scores(request.menu),
        seen=seen,
    )


def router_of_menu(
    data: SelectorData, head: Head, sample: torch.Tensor, *, base: str | None, made: Mapping[str, Any]
) -> Router:
    """A router that was trained on a menu.

    Args:
        data: The menu.
        head: The head.
        sample: The head's predictions on held-out prompts, ``[N, *sample_shape]``.
        base: The base model, if it lies elsewhere now than the menu says.
        made: Settings and metrics of the training.
    """
    settings, rows = data.menu.settings, data.rows
    known = {text_fingerprint(str(prompt)) for prompt in rows.prompt}
    known |= {
        text_fingerprint(str(task), str(example)) for task, example in zip(rows.task, rows.example_id, strict=True)
    }
    day = settings.others.get("day")
    return Router(
        base=BaseModelRef(name=lasting_name(base or settings.base.name), revision=settings.base.revision),
        head=head,
        held_out=sample,
        trained_on=frozenset(known),
        add_special_tokens=settings.add_special_tokens,
        made={"data": [], "days": [day] if is_day(day) else [], **made},
    )


def right_answers(menu: AnyPath, programs: Sequence[LayerProgram], num_examples: int) -> Array:
    """Right answers of a menu's programs on its examples, ``[N, M]``.

    Raises:
        UserError: An outcome is missing.
    """
    frame = read_matrix(menu)
    names = list(map(str, programs))
    table = frame[frame.program.isin(names)].pivot(index="place", columns="program", values="right")
    right = table.reindex(index=range(num_examples), columns=names).to_numpy(dtype=np.float64)
    missing = int(np.isnan(right).sum())
    if missing:
        raise UserError(f"{missing} outcomes are missing in {menu}; run the menu command again, which fills them")
    return right


def exits_of(request: SelectorRequest, programs: Sequence[LayerProgram]) -> list[int]:
    """The exits that are tried, those with no program but the identity left out.

    Raises:
        UserError: No exit has a program to choose, or the one that is asked for has none.
    """
    depth = programs[0].num_layers
    wanted = sorted({max(1, round(share * depth)) for share in _EXITS}) if request.exit is None else [request.exit]
    found = [at for at in wanted if at < depth and len(places_behind(programs, at)) > 1]
    if not found:
        raise UserError(
            f"no program of {request.menu} leaves the first {wanted[0]} of {depth} layers as they are: there is "
            "nothing to choose; give a smaller --exit, or a menu with more programs"
        )
    return found


def _service(
    request: SelectorRequest,
    menu: Menu,
    announce: Callable[[str], None],
    show: Callable[[str, int, int], None],
) -> FrozenModelService:
    return FrozenModelService(
        base=menu.settings.base,
        location=request.base,
        dtype=menu.settings.dtype,
        add_special_tokens=menu.settings.add_special_tokens,
        resources=request.resources,
        folder=request.features or cache_folder() / "features",
        announce=announce,
        show=show,
    )


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
        inputs=_inputs(service, menu, [one.prompt for one in feedback], exits),
        places=np.array([programs.index(one.program) for one in feedback]),
        outcomes=np.array([one.score for one in feedback]),
    )


def _inputs(service: FrozenModelService, menu: Menu, prompts: Sequence[str], exits: Sequence[int]) -> dict[int, Array]:
    """By the exit, the inputs of each prompt, ``[N, F]``."""
    template = PromptTemplate(add_special_tokens=menu.settings.add_special_tokens)
    labelled = [
        Labelled(example_id=prompt, task=menu.settings.task, prompt=prompt, counts=(1,) * menu.settings.num_layers)
        for prompt in prompts
    ]
    stores = [
        service.states(labelled, prompt_template=template, state_selection=selection, early=exits[-1])
        for selection in SELECTIONS
    ]
    # [N, S, selections, D]
    states = np.stack([np.stack([store.read(prompt)[0] for prompt in prompts]) for store in stores], axis=2)
    return {at: states[:, depths_of(at)].reshape(len(prompts), -1).astype(np.float32) for at in exits}

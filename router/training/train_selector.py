"""From a menu to a selector: its matrix, the first layers' states of its prompts, validation, fit, and the folder.

ROUTER/config.json, model.safetensors, README.md   the router; see ``router.routed.checkpoint``
ROUTER/validation.json                             the selector beside its baselines on left-out examples
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.distributed.cluster import check_output
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath, write_whole
from pipeline.tasks.arithmetic_kinds import kind_of
from pipeline.tasks.prompting import is_day
from router.artifact.base_model import BaseModelRef, lasting_name, text_fingerprint
from router.artifact.folder import check_output_folder, make_early
from router.features.prompt_template import PromptTemplate
from router.heads.per_layer.fit import KEPT_HELD_OUT
from router.heads.selector.choice import MenuChoice
from router.heads.selector.feedback import Feedback, read_feedback
from router.heads.selector.fit import FittedSelector, SeenOutcomes, fit_at_best_exit, places_behind
from router.heads.selector.selector_head import SELECTIONS, SelectorHead, SelectorNetwork, depths_of
from router.heads.selector.selector_request import SelectorRequest
from router.heads.selector.validation import BASE, SELECTOR, STATIC, Validated, folds_of, gap_closed, validate
from router.labels.labelled import Labelled
from router.menu.example_table import read_menu_examples
from router.menu.label_scores import read_label_scores
from router.menu.matrix import read_matrix
from router.menu.menu import Menu, read_menu
from router.routed.checkpoint import Router
from router.training.model_service import FrozenModelService

Array = np.ndarray[Any, Any]

VALIDATION_FILE = "validation.json"
#: Exits that are tried, as fractions of the depth.
_EXITS = (1 / 6, 1 / 4, 1 / 3, 1 / 2)


@dataclass(frozen=True, kw_only=True)
class TrainedSelector:
    """A trained selector.

    Attributes:
        router: The router.
        best_static: The program of the menu that is right on most examples, layers priced.
        validated: Its result on left-out examples, beside those of its baselines.
        gap_closed: The share of the gap between the best static program and the oracle that it closes.
    """

    router: Router
    best_static: LayerProgram
    validated: list[Validated]
    gap_closed: float


def train_selector(
    request: SelectorRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> TrainedSelector:
    """Train a selector on a menu and write it.

    Args:
        request: The training.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.

    Raises:
        UserError: Something in the request, or in the menu, is wrong.
        KeyboardInterrupt: The training was interrupted; features that were computed are kept.
    """
    check_output(request.out)
    check_output_folder(request.out, "router", overwrite=request.overwrite)
    menu, rows = read_menu(request.menu), read_menu_examples(request.menu)
    programs = [one.program for one in menu.programs]
    right = right_answers(request.menu, programs, len(rows))
    exits = exits_of(request, programs)
    folds = folds_of(list(rows.prompt), seed=request.seed)
    feedback = _feedback(request, programs, rows, announce)
    with _service(request, menu, announce, show) as service:
        inputs = _inputs(service, menu, list(rows.prompt), exits)
        seen = _seen(service, menu, feedback, programs, exits)
    make_early(request.out, "router")
    announce(f"Validating a selector among {len(programs)} programs on {len(rows)} examples, in folds.")
    validated = validate(
        inputs,
        right,
        programs,
        folds,
        judged=np.arange(len(rows)) >= len(rows) - menu.settings.num_held_out,
        kinds=[kind_of(example) or task for example, task in zip(rows.example_id, rows.task, strict=True)],
        layer_price=request.layer_price,
        label_scores=read_label_scores(request.menu),
        seen=seen,
        show=lambda done, total: show("folds", done, total),
    )
    fitted = fit_at_best_exit(inputs, right, programs, layer_price=request.layer_price, seen=seen)
    closed = gap_closed(validated)
    static = MenuChoice.of(programs, right, caution=0.0, layer_price=request.layer_price).best_static
    fallback = fallback_of(validated, programs[static], layer_price=request.layer_price)
    router = replace(_router(request, menu, rows, programs, fitted, closed), fallback=fallback)
    router.save(request.out)
    record = {"gap_closed": closed, "methods": [asdict(one) for one in validated]}
    write_whole(request.out / VALIDATION_FILE, (json.dumps(record, indent=1) + "\n").encode())
    return TrainedSelector(router=router, best_static=programs[static], validated=validated, gap_closed=closed)


def fallback_of(
    validated: Sequence[Validated], best_static: LayerProgram, *, layer_price: float
) -> LayerProgram | None:
    """The program that did better on left-out examples than the selector; None where none did.

    Args:
        validated: The result of each method.
        best_static: The best static program of the whole menu.
        layer_price: Price of a layer, in right answers an example.
    """
    value = {one.method: one.right - layer_price * one.layers for one in validated}
    others = {BASE: LayerProgram.identity(best_static.num_layers), STATIC: best_static}
    best = max(others, key=lambda method: value[method])
    return others[best] if value[best] > value[SELECTOR] else None


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


def _router(
    request: SelectorRequest,
    menu: Menu,
    rows: pd.DataFrame,
    programs: Sequence[LayerProgram],
    fitted: FittedSelector,
    closed: float,
) -> Router:
    settings = menu.settings
    network = SelectorNetwork.of(fitted.beliefs)
    head = SelectorHead(
        network=network,
        programs=tuple(programs[place] for place in fitted.places),
        exit=fitted.exit,
        hidden_size=network.in_features // (len(depths_of(fitted.exit)) * len(SELECTIONS)),
        choice=fitted.choice,
    )
    known = {text_fingerprint(str(prompt)) for prompt in rows.prompt}
    known |= {
        text_fingerprint(str(task), str(example)) for task, example in zip(rows.task, rows.example_id, strict=True)
    }
    day = settings.others.get("day")
    return Router(
        base=BaseModelRef(name=lasting_name(request.base or settings.base.name), revision=settings.base.revision),
        head=head,
        held_out=torch.from_numpy(fitted.left_out[:KEPT_HELD_OUT].astype(np.float32)),
        trained_on=frozenset(known),
        add_special_tokens=settings.add_special_tokens,
        made={
            "data": [],
            "menu": str(request.menu),
            "questions": len(rows),
            "layer_price": request.layer_price,
            "days": [day] if is_day(day) else [],
            "gap_closed": closed,
            **({} if request.feedback is None else {"feedback": str(request.feedback)}),
        },
    )

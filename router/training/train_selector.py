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
import torch

from pipeline.distributed.cluster import check_output
from pipeline.program import LayerProgram
from pipeline.storage import write_whole
from router.artifact.folder import VALIDATION_FILE, check_output_folder, make_early, remove_training_records
from router.heads.per_layer.fit import KEPT_HELD_OUT
from router.heads.selector.choice import MenuChoice
from router.heads.selector.fit import FittedSelector
from router.heads.selector.selector_head import SELECTIONS, SelectorHead, SelectorNetwork, depths_of
from router.heads.selector.selector_request import SelectorRequest
from router.heads.selector.validation import BASE, SELECTOR, STATIC, Validated, gap_closed
from router.routed.checkpoint import Router
from router.training.selector_data import SelectorData, read_selector_data

Array = np.ndarray[Any, Any]


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
    data = read_selector_data(request, announce=announce, show=show)
    make_early(request.out, "router")
    announce(f"Validating a selector among {len(data.programs)} programs on {len(data.rows)} examples, in folds.")
    validated = data.validate(layer_price=request.layer_price, show=lambda done, total: show("folds", done, total))
    fitted = data.fit(layer_price=request.layer_price)
    if data.seen is not None and (unused := int(np.isin(data.seen.places, fitted.places, invert=True).sum())):
        announce(f"{unused} outcomes of {request.feedback} are of programs that change a layer before the exit.")
    closed = gap_closed(validated)
    static = MenuChoice.of(data.programs, data.right, caution=0.0, layer_price=request.layer_price).best_static
    fallback = fallback_of(validated, data.programs[static], layer_price=request.layer_price)
    router = replace(_router(request, data, fitted, closed), fallback=fallback)
    remove_training_records(request.out)
    router.save(request.out)
    record = {"gap_closed": closed, "methods": [asdict(one) for one in validated]}
    write_whole(request.out / VALIDATION_FILE, (json.dumps(record, indent=1) + "\n").encode())
    return TrainedSelector(router=router, best_static=data.programs[static], validated=validated, gap_closed=closed)


def fallback_of(
    validated: Sequence[Validated], best_static: LayerProgram, *, layer_price: float
) -> LayerProgram | None:
    """The program that did better on left-out examples than the selector; None where none did.

    Args:
        validated: The result of each method.
        best_static: The best static program of the whole menu.
        layer_price: Price of a layer, in right answers an example.
    """
    value = {one.method: one.value(layer_price) for one in validated}
    others = {BASE: LayerProgram.identity(best_static.num_layers), STATIC: best_static}
    best = max(others, key=lambda method: value[method])
    return others[best] if value[best] > value[SELECTOR] else None


def _router(request: SelectorRequest, data: SelectorData, fitted: FittedSelector, closed: float) -> Router:
    network = SelectorNetwork.of(fitted.beliefs)
    head = SelectorHead(
        network=network,
        programs=tuple(data.programs[place] for place in fitted.places),
        exit=fitted.exit,
        hidden_size=len(network.projection) // (len(depths_of(fitted.exit)) * len(SELECTIONS)),
        choice=fitted.choice,
    )
    return data.router(
        head,
        torch.from_numpy(fitted.left_out[:KEPT_HELD_OUT].astype(np.float32)),
        base=request.base,
        further_prompts=data.seen_prompts,
        made={
            "menu": str(request.menu),
            "questions": len(data.rows),
            "layer_price": request.layer_price,
            "gap_closed": closed,
            **({} if request.feedback is None else {"feedback": str(request.feedback)}),
        },
    )

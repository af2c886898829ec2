"""The kinds of routers: one table, which alone lists them."""

from __future__ import annotations

from typing import Any

from router.heads.early_exit.early_exit_head import EarlyExitHead, early_exit_card
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.early_exit.train import draw_early_exit, extract_early_exit, fit_early_exit, label_early_exit
from router.heads.head_request import HeadRequest
from router.heads.kind import HeadKind, SavedKind
from router.heads.per_layer.per_layer_head import PerLayerHead, per_layer_card
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.heads.per_layer.train import draw_per_layer, extract_per_layer, fit_per_layer, label_per_layer
from router.heads.requests import OLD_NAMES
from router.heads.selector.selector_head import SelectorHead, selector_card
from router.heads.static.static_head import StaticHead, static_card

_PER_LAYER = HeadKind(
    head=PerLayerHead,
    request=PerLayerRequest,
    label=label_per_layer,
    extract=extract_per_layer,
    fit=fit_per_layer,
    draw=draw_per_layer,
    card=per_layer_card,
)
_EARLY_EXIT = HeadKind(
    head=EarlyExitHead,
    request=EarlyExitRequest,
    label=label_early_exit,
    extract=extract_early_exit,
    fit=fit_early_exit,
    draw=draw_early_exit,
    card=early_exit_card,
)

#: Every kind of router by its name.
HEAD_KINDS: dict[str, HeadKind[Any, Any, Any, Any]] = {
    kind.name: kind
    for kind in (
        _PER_LAYER,
        _EARLY_EXIT,
    )
}
#: Every kind of router that is loaded, by its name: selectors are trained on a menu, static ones are not trained.
SAVED_KINDS: dict[str, SavedKind] = {
    **HEAD_KINDS,
    SelectorHead.name: SavedKind(head=SelectorHead, card=selector_card),
    StaticHead.name: SavedKind(head=StaticHead, card=static_card),
}
#: The kind of routers that were saved without a kind.
UNNAMED_KIND = _PER_LAYER.name


def find_kind(name: str) -> SavedKind:
    """The kind of a name, also an old one.

    Raises:
        ValueError: There is no head of that name.
    """
    kind = SAVED_KINDS.get(OLD_NAMES.get(name, name)) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown head {name!r}; choose one of: {', '.join(SAVED_KINDS)}")
    return kind


def kind_of(request: HeadRequest) -> HeadKind[Any, Any, Any, Any]:
    """The kind that a request configures.

    Raises:
        LookupError: No kind in the table has such a request.
    """
    for kind in HEAD_KINDS.values():
        if kind.request is type(request):
            return kind
    raise LookupError(f"HEAD_KINDS in {__name__} has no kind whose request is {type(request).__name__}; add it there")

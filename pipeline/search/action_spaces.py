"""The table of action spaces: what each one allows, and how a search in it is set up.

To add a space, write a function from a program to its edits (see ``actions``) and one record here, or a record in a
module of your own that is named ``my_package.my_module:SPACE``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.search.actions import Edit, cola, drllm
from pipeline.search.plug_in import is_reference, load_object


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """One way to get from a layer program to its neighbours."""

    name: str
    """The value of ``--action-space``."""
    help: str
    """Description of the space in one line, for ``--help``."""
    edits: Callable[[LayerProgram, int], list[Edit]]
    """From a program and the longest length allowed, in layers, to the edits. No edit leads to the program that it
    came from, and no two lead to the same one."""
    keeps_order: bool
    """Whether edits only skip and repeat layers. False where an edit moves layers: a prior predicts from how often
    each layer runs, so it cannot distinguish such programs, and the space is searched without one."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``SearchConfig`` whose default is another one in this space."""
    published: Mapping[str, Any] | None = None
    """Fields of ``SearchConfig`` as published; None where there is no publication."""


#: Both papers' UCB, on a tree that branches (how wide it grows is not in the papers).
_PUBLISHED_UCB = {
    "exploration": 1.8,
    "length_penalty": 3.0,
    "random_child": 0.1,
    "recall": 0.0,
    "right_first": False,
    "backup": "mean",
    "margin_scale": None,
    "widening": 1.0,
    "stop_when_found": True,
}
DRLLM = ActionSpace(
    name="drllm",
    help="skip 1-2 layers, repeat one",
    edits=drllm,
    keeps_order=True,
    published=_PUBLISHED_UCB,
)
#: CoLa's larger space gets its larger number of simulations. Its edits change up to sixteen layer executions at once,
#: so that every far program is an edit away; the depth penalty (``caution``) keeps a search near the identity program.
COLA = ActionSpace(
    name="cola",
    help="skip or repeat blocks of 1-4, nested",
    edits=cola,
    keeps_order=True,
    defaults={"simulations": 200, "caution": 0.2},
    published={
        **_PUBLISHED_UCB,
        "simulations": 200,
        "length_penalty": 5.0,
        "random_child": 0.0,
        "unexplored_child": 0.1,
        "stop_when_found": False,
    },
)
ACTION_SPACES: dict[str, ActionSpace] = {space.name: space for space in (DRLLM, COLA)}


def get_action_space(name: str) -> ActionSpace:
    """The action space of that name, or the one that ``my_package.my_module:SPACE`` names.

    Raises:
        UserError: There is no such space.
    """
    if is_reference(name):
        return load_object(name, ActionSpace, role="--action-space")
    if name not in ACTION_SPACES:
        raise UserError(
            f"--action-space {name!r} is unknown; choose one of: {', '.join(sorted(ACTION_SPACES))}; or name your own "
            "as my_package.my_module:SPACE"
        )
    return ACTION_SPACES[name]

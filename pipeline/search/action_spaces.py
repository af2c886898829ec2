"""The table of action spaces: what each one allows, and how a search in it is set up.

To add a space, write a function from a program to its edits (see ``actions``) and one record here, or a record in a
module of your own that is named ``my_package.my_module:SPACE``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.search.actions import Edit, cola, drllm
from pipeline.search.plug_in import is_reference, load_object, located


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """One way to get from a layer program to its neighbours.

    Raises:
        ValueError: ``defaults`` or ``published`` is no mapping.
    """

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

    def __post_init__(self) -> None:
        for field_name in ("defaults", "published"):
            value = getattr(self, field_name)
            if not (isinstance(value, Mapping) or (value is None and field_name == "published")):
                raise ValueError(f"{field_name} must be a mapping such as {{'simulations': 200}}, got {value!r}")


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
        UserError: There is no such space, or its ``edits`` cannot be called with a program and a length. The ``edits``
            of a user's space raise one too, where they return no list of edits, or an edit of another depth or over
            the longest length.
    """
    if is_reference(name):
        space = load_object(name, ActionSpace, role="--action-space")
        return replace(space, edits=_refusing_broken_edits(name, space.edits))
    if name not in ACTION_SPACES:
        raise UserError(
            f"--action-space {name!r} is unknown; choose one of: {', '.join(sorted(ACTION_SPACES))}; or name your own "
            "as my_package.my_module:SPACE"
        )
    return ACTION_SPACES[name]


def check_action_space(name: str, *, num_layers: int, max_length: int) -> None:
    """Check the edits of a user's space at the identity program; the built-in spaces' have tests.

    Raises:
        UserError: An edit leads to the program itself or where another edit leads, or moves layers although the space
            says ``keeps_order``; or the edits break a rule that ``get_action_space`` names.
    """
    if not is_reference(name):
        return
    space, identity = get_action_space(name), LayerProgram.identity(num_layers)
    labels: dict[LayerProgram, str] = {}
    for edit in space.edits(identity, max_length):
        where, program = _where(name, edit, identity), edit.program
        if program == identity:
            raise UserError(f"{where} leads to the program itself; leave it out")
        if program in labels:
            raise UserError(f"{where} leads to {program}, as the edit {labels[program]!r} does; leave one of them out")
        # A repeated block (0-1,0-1) keeps the order: each layer first runs after the ones below it.
        first_runs = list(dict.fromkeys(program.layers))
        if space.keeps_order and first_runs != sorted(first_runs):
            raise UserError(f"{where} moves layers (it leads to {program}); set keeps_order=False")
        labels[program] = edit.label


def _refusing_broken_edits(
    name: str, edits: Callable[[LayerProgram, int], list[Edit]]
) -> Callable[[LayerProgram, int], list[Edit]]:
    """The edits of a user's space, with a check of each list that they return."""
    if not callable(edits):
        raise UserError(
            f"action space {name!r}: edits must be a function, edits(program, max_length), found {type(edits).__name__}"
        )
    try:
        inspect.signature(edits).bind(None, None)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"action space {name!r}: edits must be a function of a program and the longest length allowed, "
            f"edits(program, max_length): {error}"
        ) from None

    def checked(program: LayerProgram, max_length: int) -> list[Edit]:
        where = f"action space {name!r}: the edits of {program}"
        try:
            found: object = edits(program, max_length)
        except Exception as error:  # the function is the user's own, and so is whatever it raises
            raise UserError(f"{where} cannot be made: {located(error)}") from None
        if not isinstance(found, list):
            raise UserError(f"{where} must be a list of Edit, found {type(found).__name__}")
        for edit in found:
            if not isinstance(edit, Edit) or not isinstance(edit.program, LayerProgram):
                raise UserError(f"{where} must be a list of Edit(label, program), found {edit!r} in it")
            if len(edit.program) > max_length:
                raise UserError(f"{_where(name, edit, program)} is longer than max_length {max_length}")
            if edit.program.num_layers != program.num_layers:
                depths = f"{edit.program.num_layers} layers, the program for {program.num_layers}"
                raise UserError(f"{_where(name, edit, program)} is for {depths}")
        return found

    return checked


def _where(name: str, edit: Edit, program: LayerProgram) -> str:
    return f"action space {name!r}: the edit {edit.label!r} of {program}"

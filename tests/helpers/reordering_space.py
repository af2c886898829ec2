"""An action space whose edits move layers, as a user's own module would have it."""

from __future__ import annotations

from pipeline.program import LayerProgram
from pipeline.search.action_spaces import ActionSpace
from pipeline.search.actions import Edit


def reverse(program: LayerProgram, max_length: int) -> list[Edit]:
    """The one edit that turns the layers' order around."""
    turned = LayerProgram(tuple(reversed(program.layers)), program.num_layers)
    return [] if turned == program else [Edit("reverse", turned)]


SPACE = ActionSpace(name="reverse", help="turn the layers' order around", edits=reverse, keeps_order=False)
#: What ``--action-space`` takes for it.
NAME = "reordering_space:SPACE"

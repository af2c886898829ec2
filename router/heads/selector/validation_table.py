"""A validation on the terminal: the methods side by side, and what follows for the router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from pipeline.program import LayerProgram
from router.heads.selector.validation import BASE, SELECTOR, STATIC, Validated


def validation_table(validated: Sequence[Validated]) -> Table:
    """The methods side by side; those with a star know more than a router can."""
    table = Table(
        title="Right answers on left-out folds",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption="* knows the kind of an example, or the answers: no method, but a ceiling.",
        caption_justify="left",
    )
    for column in ("", "right", "gain (95 % CI)", "p", "p (static)", "layers"):
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column))
    for one in validated:
        is_base, is_static = one.method == BASE, one.method in (BASE, STATIC)
        table.add_row(
            one.method,
            f"{100 * one.right:.1f} %",
            "" if is_base else f"{100 * one.gain:+.1f} ({100 * one.gain_low:+.1f} to {100 * one.gain_high:+.1f})",
            "" if is_base or one.p_value is None else f"{one.p_value:.2g}",
            "" if is_static or one.p_static is None else f"{one.p_static:.2g}",
            f"{one.layers:.2f}",
        )
    return table


def describe_selector(head: Any, best_static: LayerProgram, validated: Sequence[Validated], gap_closed: float) -> str:
    """What the router does, and whether it is worth more than one program for all prompts, layers priced.

    Args:
        head: The ``SelectorHead``.
        best_static: The best static program of the whole menu.
        validated: Its result on left-out examples, beside those of its baselines.
        gap_closed: The share of the gap between the best static program and the oracle that it closes.
    """
    by_method = {one.method: one for one in validated}
    selector, static, base = by_method[SELECTOR], by_method[STATIC], by_method[BASE]
    best = head.programs[head.choice.best_static]
    what = (
        f"The selector chooses among {len(head.programs)} programs after {head.exit} layers; where no other one is "
        f"clearly better it runs {best.described}."
    )
    worth = {one.method: one.value(head.choice.layer_price) for one in (selector, static, base)}
    if worth[SELECTOR] > worth[STATIC] and gap_closed <= 0:
        how = (
            f"It runs {static.layers - selector.layers:.2f} layers fewer than the best static program; at their price "
            "that is worth more than the right answers that it has less."
        )
    elif worth[SELECTOR] > worth[STATIC]:
        how = f"It closes {100 * gap_closed:.0f} % of the gap between the best static program and the oracle."
    else:
        cure = (
            "the base model does as well."
            if best_static.is_identity
            else f"one program does as well: {best_static} (drllm-pipeline export --program {best_static})."
        )
        how = (
            "It is not worth more than the best static program on left-out examples. More examples in the menu may "
            f"help; until then {cure}"
        )
    if max(worth[SELECTOR], worth[STATIC]) < worth[BASE]:
        how += " Neither is worth more than the base model there."
    return f"{what} {how}"

"""Layer-synchronous execution: rows with different programs share every layer call they can.

All rows start at the first position of their programs. Each step runs one layer on all rows that need
it next; the lowest such layer goes first, so that rows which loop back catch up with those which
wait, and rows which skip ahead are rejoined. A batch of equal programs is one call a layer; different
programs cost a call more only where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pipeline.engine.contract import DecoderStack, Rotary
from pipeline.engine.kv import KVSlots
from pipeline.program import LayerProgram


def run_programs(
    stack: DecoderStack,
    hidden: torch.Tensor,
    programs: Sequence[LayerProgram],
    *,
    positions: torch.Tensor,
    lengths: list[int],
    extent: int,
    slots: KVSlots | None = None,
    slot_rows: Sequence[int] | None = None,
    done: Sequence[int] | None = None,
    on_layer: Callable[[int, int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Compose each row's layers on its residual stream.

    Args:
        stack: The frozen model's parts.
        hidden: Residual stream after the embeddings, ``[B, T, D]``; rows are padded at the right.
        programs: One a row.
        positions: Each token's position in its row's text, ``[B, T]``.
        lengths: Valid tokens of each row among T.
        extent: Keys 0…extent-1 take part in the attention.
        slots: Where keys and values are kept; None to keep nothing.
        slot_rows: Each row's index in ``slots``, where that is not its index here.
        done: How many layers of each row's program ``hidden`` has behind it; None for none.
        on_layer: Told, after each layer of each row, the row, how many of its layers have run, and its
            residual stream ``[T, D]``, a view that the next layer leaves behind.

    Returns:
        The residual stream before the final norm, ``[B, T, D]``.
    """
    device = hidden.device
    rotary = stack.rotary(hidden, positions, lengths)
    masks = {kind: stack.attention_mask(positions, extent, kind, hidden.dtype) for kind in set(stack.layer_types)}
    kv_rows = torch.tensor(range(len(programs)) if slot_rows is None else slot_rows, device=device)
    cursors = [0] * len(programs) if done is None else list(done)

    while True:
        waiting = [row for row, program in enumerate(programs) if cursors[row] < len(program)]
        if not waiting:
            return hidden
        layer = min(programs[row].layers[cursors[row]] for row in waiting)
        rows = [row for row in waiting if programs[row].layers[cursors[row]] == layer]
        everyone = len(rows) == len(programs)
        index = torch.tensor(rows, device=device)

        def pick(tensor: torch.Tensor, index: torch.Tensor = index, everyone: bool = everyone) -> torch.Tensor:
            return tensor if everyone else tensor.index_select(0, index)

        kind = stack.layer_types[layer]
        mask = masks[kind]
        cos, sin = _of_kind(rotary, kind)
        shared_rotary = cos.shape[0] == 1
        row_positions = pick(positions)
        cache = None
        if slots is not None:
            cache = slots.at(
                slots=torch.tensor([cursors[row] for row in rows], device=device),
                rows=pick(kv_rows),
                positions=row_positions,
                extent=extent,
            )
        output = stack.run_layer(
            layer,
            pick(hidden),
            mask=None if mask is None else pick(mask),
            positions=row_positions,
            rotary=(cos, sin) if shared_rotary else (pick(cos), pick(sin)),
            cache=cache,
        )
        hidden = output if everyone else hidden.index_copy(0, index, output)
        for place, row in enumerate(rows):
            cursors[row] += 1
            if on_layer is not None:
                on_layer(row, cursors[row], output[place])


def _of_kind(rotary: Rotary, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    return rotary[None] if None in rotary else rotary[kind]

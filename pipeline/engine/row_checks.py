"""The rows of a call: a text and a program each."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.program import LayerProgram

#: A text as token ids.
TokenIds = Sequence[int]


def check_rows(token_ids: Sequence[TokenIds], programs: Sequence[LayerProgram], *, num_layers: int) -> None:
    """Refuse rows that no model of this depth can run.

    Args:
        token_ids: One text a row.
        programs: One program a row.
        num_layers: Depth of the model.

    Raises:
        ValueError: Rows and programs do not match, a row is empty, or a program is for another depth.
    """
    if len(token_ids) != len(programs):
        raise ValueError(f"{len(token_ids)} rows of tokens but {len(programs)} programs: one program a row")
    for row, (ids, program) in enumerate(zip(token_ids, programs)):
        if len(ids) == 0:
            raise ValueError(f"row {row} has no tokens")
        if program.num_layers != num_layers:
            raise ValueError(f"the program of row {row} is for {program.num_layers} layers, the model has {num_layers}")


def check_new_tokens(max_new_tokens: int) -> None:
    """Refuse to generate nothing.

    Raises:
        ValueError: ``max_new_tokens`` is below 1.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")

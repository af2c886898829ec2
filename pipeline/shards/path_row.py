"""What a row says of a program."""

from __future__ import annotations

from pipeline.program import LayerProgram

_MOST_COUNTED = 127


def storable_counts(program: LayerProgram) -> list[int] | None:
    """Counts as the shards hold them: a byte each, so a layer that runs more than 127 times has none."""
    counts = program.counts
    return None if counts is None or max(counts) > _MOST_COUNTED else list(counts)

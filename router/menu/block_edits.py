"""Block edits: programs near the identity, each made of a few blocks of layers that are skipped or run again.

Programs that are good on many examples are few edits away from the identity program. Two edits go together where their
blocks have no layer in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from pipeline.program import LayerProgram

#: Most layers of a block, and most times that a block runs again: CoLa's blocks (2507.07996, §3), of its times the
#: first two.
MOST_SPAN, MOST_AGAIN = 4, 2


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class BlockEdit:
    """A block of the model's layers that does not run once.

    Attributes:
        start: First layer of the block.
        span: Layers of the block.
        times: Times that the block runs: 0, or at least 2.
    """

    start: int
    span: int
    times: int

    @property
    def stop(self) -> int:
        """The layer behind the block."""
        return self.start + self.span

    @property
    def added_layers(self) -> int:
        """Layers more than in the identity program; negative for a skipped block."""
        return (self.times - 1) * self.span


def single_edits(num_layers: int, *, least: int, most: int) -> Iterator[BlockEdit]:
    """All edits of one block that lead to a program of ``least`` to ``most`` layers.

    Args:
        num_layers: Depth L of the model.
        least: Fewest layers of a program.
        most: Most layers of a program.
    """
    for span in range(1, min(MOST_SPAN, num_layers) + 1):
        for times in (0, *range(2, MOST_AGAIN + 2)):
            for start in range(num_layers - span + 1):
                edit = BlockEdit(start=start, span=span, times=times)
                if max(1, least) <= num_layers + edit.added_layers <= most:
                    yield edit


def combined_edits(
    edits: Sequence[BlockEdit], number: int, *, num_layers: int, least: int, most: int
) -> Iterator[tuple[BlockEdit, ...]]:
    """All sets of ``number`` edits that go together and lead to a program of ``least`` to ``most`` layers.

    Those of the first edits come first.
    """
    for some in (tuple(sorted(one)) for one in combinations(dict.fromkeys(edits), number)):
        length = num_layers + sum(edit.added_layers for edit in some)
        if go_together(some) and max(1, least) <= length <= most:
            yield some


def go_together(edits: Sequence[BlockEdit]) -> bool:
    """Whether no two of the edits, which are in order, have a layer in common."""
    return all(one.stop <= other.start for one, other in pairwise(edits))


def edited(edits: Iterable[BlockEdit], num_layers: int) -> LayerProgram:
    """The program of some edits that go together.

    Raises:
        ValueError: Two edits have a layer in common, or no layer is left.
    """
    in_order = sorted(edits)
    if not go_together(in_order):
        raise ValueError(f"two edits have a layer in common: {in_order}")
    layers: list[int] = []
    position = 0
    for edit in in_order:
        layers += range(position, edit.start)
        layers += list(range(edit.start, edit.stop)) * edit.times
        position = edit.stop
    return LayerProgram([*layers, *range(position, num_layers)], num_layers)

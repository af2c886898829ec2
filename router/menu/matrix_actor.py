"""The Ray actor that runs programs on examples for a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.distributed.model_actor import TaskActor
from pipeline.tasks import Example
from router.menu.matrix import LayerCost, MatrixChunk
from router.menu.racing import Outcomes


@dataclass(frozen=True, kw_only=True)
class MatrixWork:
    """A chunk with its examples.

    Attributes:
        chunk: The chunk.
        examples: The examples at its places.
    """

    chunk: MatrixChunk
    examples: Sequence[Example]


class MatrixActor(TaskActor):
    """Runs every program of a chunk on every example of it, in all the example's renderings."""

    def work(self, work: MatrixWork) -> tuple[Outcomes, LayerCost]:
        """The outcomes, and what they cost."""
        self._begin()
        model, programs = self._model, work.chunk.programs
        before = LayerCost(run=model.tokens_run, separately=model.tokens_asked)
        prepared = [self._task.prepare(example, model.tokenizer) for example in work.examples]
        asked = [[replace(one, renderings=[]), *one.renderings] for one in prepared]
        cells = [[(one, program) for one in renderings] for renderings in asked for program in programs]
        pairs = [pair for cell in cells for pair in cell]
        scored = iter(
            self._task.score(model, [one for one, _ in pairs], [program for _, program in pairs], need_response=False)
        )
        of_cells = [[next(scored) for _ in cell] for cell in cells]
        shape = len(work.examples), len(programs)
        right = np.array([np.mean([outcome.correct for outcome in some]) for some in of_cells]).reshape(shape)
        margins = np.array([np.min([outcome.margin for outcome in some]) for some in of_cells]).reshape(shape)
        cost = LayerCost(run=model.tokens_run - before.run, separately=model.tokens_asked - before.separately)
        return Outcomes(right=right, margins=margins), cost

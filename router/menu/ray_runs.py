"""Programs on examples, run on Ray actors where the matrix has no outcome yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.distributed.actor_pool import ActorPool
from pipeline.program import LayerProgram
from pipeline.storage import Writer
from pipeline.tasks import Example
from router.menu.matrix import Matrix
from router.menu.matrix_actor import MatrixWork
from router.menu.racing import Outcomes


@dataclass(frozen=True, kw_only=True)
class RayRuns:
    """Runs programs on the examples of a menu; see ``router.menu.racing.RunsPrograms``.

    Attributes:
        examples: The examples, in the order of the race.
        matrix: The outcomes that are known; new ones are added.
        writer: The writer of the menu's folder.
        actors: The actors.
        show: Receives the number of outcomes that a call has computed, and of how many.
    """

    examples: Sequence[Example]
    matrix: Matrix
    writer: Writer
    actors: ActorPool[MatrixWork]
    show: Callable[[int, int], None]

    def __call__(self, programs: Sequence[LayerProgram], examples: range) -> Outcomes:
        """The outcomes of programs on the examples at some places, ``[N, M]``.

        Raises:
            UserError: The model cannot be loaded, or actors fail at an example.
            StorageError: An outcome cannot be written.
        """
        # Questions behind the same worked examples come into one chunk: what they share runs once.
        places = sorted(examples, key=lambda place: self.examples[place].question)
        chunks = self.matrix.missing(programs, places)
        # The longest first: no actor is left with a long one at the end.
        chunks.sort(key=len, reverse=True)
        works = [MatrixWork(chunk=chunk, examples=[self.examples[place] for place in chunk.places]) for chunk in chunks]
        done, total = 0, sum(map(len, chunks))
        for work, (outcomes, cost) in self.actors.map(works):
            self.matrix.add(work.chunk, outcomes, cost=cost, writer=self.writer)
            done += len(work.chunk)
            self.show(done, total)
        return self.matrix.outcomes(programs, examples)

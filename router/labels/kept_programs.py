"""The programs that runs keep, and on how many of their examples each is right: no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_paths, read_settings
from pipeline.storage import AnyPath
from router.artifact.base_model import BaseModelRef, short_revision


@dataclass(frozen=True, kw_only=True)
class KeptPrograms:
    """The right programs in the rows of runs.

    A run keeps some of the programs that it evaluated on an example (``--keep``). What it does not keep counts as
    wrong here, so the numbers are lower bounds, except the identity program's, which every example has a row of.

    Attributes:
        right: By program, the number of examples with a row that says it is right.
        num_examples: Number of examples; one that several runs have counts once.
    """

    right: Mapping[LayerProgram, int]
    num_examples: int

    @classmethod
    def read(cls, runs: Sequence[AnyPath]) -> KeptPrograms:
        """Read the rows of runs.

        Raises:
            UserError: A folder is no run, or a shard is damaged.
        """
        found: dict[LayerProgram, set[tuple[str, str, str]]] = {}
        examples: set[tuple[str, str, str]] = set()
        for run in runs:
            rows = read_paths(run)
            keys = list(zip(rows.task, rows.example_id, rows.prompt))
            examples.update(keys)
            for key, program, layers, correct in zip(keys, rows.program, rows.num_layers, rows.correct):
                if correct:
                    found.setdefault(LayerProgram(map(int, program), int(layers)), set()).add(key)
        return cls(right={program: len(keys) for program, keys in found.items()}, num_examples=len(examples))

    @property
    def ranked(self) -> list[LayerProgram]:
        """The programs, those that are right on most examples first, and of equally good ones the shortest."""
        return sorted(self.right, key=lambda program: (-self.right[program], len(program), program.layers))


def base_of_runs(runs: Sequence[AnyPath]) -> BaseModelRef:
    """The base model that all of the runs searched.

    Args:
        runs: One run folder or more.

    Raises:
        UserError: A folder is no run or does not name its model, or the runs are of different models.
    """
    bases = []
    for run in runs:
        settings = read_settings(run)
        name, revision = settings.get("model.name"), settings.get("model.revision")
        if not isinstance(name, str) or not isinstance(revision, str):
            raise UserError(f"{run / 'run.json'} does not name the model that was searched")
        bases.append(BaseModelRef(name=name, revision=revision))
    for run, base in zip(runs, bases):
        if base.revision != bases[0].revision:
            raise UserError(
                f"the runs are of different models: {bases[0].name} (revision {short_revision(bases[0].revision)}) in "
                f"{runs[0]}, {base.name} ({short_revision(base.revision)}) in {run}"
            )
    return bases[0]

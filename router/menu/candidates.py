"""Candidate sets: the programs that are worth running on every example of a search."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_paths, read_settings
from pipeline.shards.source_examples import examples_of, options_of, prompting_of
from pipeline.storage import AnyPath
from pipeline.tasks import Example, TaskOptions
from pipeline.tasks.prompting import Prompting
from router.labels.labelled import Labelled, expressible_as_counts

Array = np.ndarray[Any, Any]

#: Programs that are screened, and examples of each search that screen them.
NUM_SCREENED, SCREENING_EXAMPLES = 32, 128
#: Programs of a candidate set, the identity program among them.
NUM_CANDIDATES = 8


@dataclass(frozen=True, kw_only=True)
class SearchedRun:
    """One run: its rows, and its examples to run further programs on.

    Attributes:
        run: The run folder.
        rows: Rows of the run.
        examples: Examples of the run that have rows.
        task: Name of its task.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        prompting: The settings of the run's prompts, for what its rows do not hold.
    """

    run: AnyPath
    rows: pd.DataFrame
    examples: Sequence[Example]
    task: str
    max_new_tokens: int | None = None
    task_options: TaskOptions = field(default_factory=TaskOptions)
    prompting: Prompting = field(default_factory=Prompting)

    @classmethod
    def read(cls, run: AnyPath, *, questions: str | None = None) -> SearchedRun:
        """Read a run, and its examples from their source.

        Args:
            run: The run folder.
            questions: Where the examples are now; None for where the search found them.

        Raises:
            UserError: The examples cannot be read again, or are too few.
        """
        rows, settings = read_paths(run), read_settings(run)
        known = set(rows.example_id)
        if len(known) < 2:
            raise UserError(
                f"{run} has {len(known)} examples: too few to predict one from the others; leave it out, or train "
                "with --labels consensus"
            )
        try:
            prompts = rows.groupby("example_id").prompt.first()
            examples = [
                replace(example, prompt=str(prompts[example.id]))
                for example in examples_of(run, data=questions)
                if example.id in known
            ]
        except UserError as error:
            raise UserError(
                f"the examples of {run} cannot be read again ({error}), and no further program can be evaluated on "
                "them; say with --questions where they are now, or train on the run's own programs, with --labels "
                "consensus"
            ) from None
        return cls(
            run=run,
            rows=rows,
            examples=examples,
            task=settings["task"],
            max_new_tokens=settings.get("max_new_tokens"),
            task_options=options_of(settings),
            prompting=prompting_of(run),
        )

    @property
    def base_labels(self) -> list[Labelled]:
        """The examples, each with the identity program as its label."""
        depth = int(self.rows.num_layers.iloc[0])
        prompts = self.rows.groupby("example_id").prompt.first()
        return [
            Labelled(example_id=example.id, task=example.task, prompt=str(prompts[example.id]), counts=(1,) * depth)
            for example in self.examples
        ]


class LabelService(Protocol):
    """The results of the base model that labelling needs. An implementation keeps them, and computes missing ones."""

    def verdicts(self, run: SearchedRun, examples: Sequence[Example], programs: Sequence[LayerProgram]) -> Array:
        """Whether each program is right on each example of a run, bool ``[N, M]``."""
        ...

    def summaries(self, rows: Sequence[Labelled], *, num_windows: int) -> Array:
        """Summaries of the base model's hidden states on prompts, ``[N, …]``; see ``router.menu.ridge.summarize``."""
        ...


def screening_examples(examples: Sequence[Example]) -> list[Example]:
    """The examples of a run that screen its candidates; the same ones each time."""
    shuffled = list(examples)
    random.Random("screening questions").shuffle(shuffled)
    return shuffled[:SCREENING_EXAMPLES]


def choose_candidates(screened: Sequence[LayerProgram], right: Array) -> list[LayerProgram]:
    """The candidate set: the first program, and those of the others that are right on most screening examples.

    Args:
        screened: The programs.
        right: Whether each is right on each screening example, ``[N, M]``.
    """
    totals = right.sum(0)
    order = sorted(range(1, len(screened)), key=lambda index: (-totals[index], len(screened[index]), index))
    return [screened[0], *(screened[index] for index in order[: NUM_CANDIDATES - 1])]


def frequent_programs(rows: pd.DataFrame, identity: LayerProgram) -> list[LayerProgram]:
    """The identity program, and the programs that a search found right most often."""
    found = rows[rows.correct & (rows["rank"] > 0)]
    counted: Counter[tuple[int, ...]] = Counter(
        tuple(map(int, counts)) for counts in found.counts if expressible_as_counts(counts)
    )
    counted.pop(counts_of(identity), None)
    ranked = sorted(counted, key=lambda counts: (-counted[counts], sum(counts), counts))
    return [identity, *map(LayerProgram.from_counts, ranked[: NUM_SCREENED - 1])]


def counts_of(program: LayerProgram) -> tuple[int, ...]:
    """Number of times that the program runs each layer; the program keeps the layers' order."""
    assert program.counts is not None
    return program.counts

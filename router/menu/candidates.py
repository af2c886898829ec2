"""Programs that are worth running on every question of a search."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from pipeline.program import LayerProgram
from pipeline.tasks import Example
from router.labels.labelled import Labelled, sayable
from router.menu.ridge import Array

#: Programs that are tried on some questions, and how many of each search for the menu there are.
CANDIDATES, SCREENING_QUESTIONS = 32, 128
#: Programs of the menu, the untouched model among them.
MENU = 8


#: From questions and programs to whether each program is right on each question, ``[questions, programs]``.
Judge = Callable[[Sequence[Example], Sequence[LayerProgram]], Array]


@dataclass(frozen=True, kw_only=True)
class SearchedRun:
    """What one search left, and somebody who runs further programs on its questions.

    Attributes:
        rows: Its rows.
        examples: Its questions, those that have rows.
        judge: Runs programs on them.
    """

    rows: pd.DataFrame
    examples: Sequence[Example]
    judge: Judge

    @property
    def untouched(self) -> list[Labelled]:
        """Its questions, each with the untouched model as its label."""
        depth = int(self.rows.num_layers.iloc[0])
        prompts = self.rows.groupby("example_id").prompt.first()
        return [
            Labelled(example_id=example.id, task=example.task, prompt=str(prompts[example.id]), counts=(1,) * depth)
            for example in self.examples
        ]


def choose_menu(candidates: Sequence[LayerProgram], examples: Sequence[Example], judge: Judge) -> list[LayerProgram]:
    """Those of the candidates that are right on most of some questions; the first of them stays in any case."""
    some = list(examples)
    random.Random("screening questions").shuffle(some)
    right = judge(some[:SCREENING_QUESTIONS], candidates).sum(0)
    order = sorted(range(1, len(candidates)), key=lambda place: (-right[place], len(candidates[place]), place))
    return [candidates[0], *(candidates[place] for place in order[: MENU - 1])]


def candidate_programs(rows: pd.DataFrame, identity: LayerProgram) -> list[LayerProgram]:
    """The untouched model, and the programs that were found right most often."""
    found = rows[rows.correct & (rows["rank"] > 0)]
    counted: Counter[tuple[int, ...]] = Counter(tuple(map(int, counts)) for counts in found.counts if sayable(counts))
    counted.pop(counts_of(identity), None)
    ranked = sorted(counted, key=lambda counts: (-counted[counts], sum(counts), counts))
    return [identity, *map(LayerProgram.from_counts, ranked[: CANDIDATES - 1])]


def counts_of(program: LayerProgram) -> tuple[int, ...]:
    """How often the program runs each layer; it keeps the layers' order."""
    assert program.counts is not None
    return program.counts

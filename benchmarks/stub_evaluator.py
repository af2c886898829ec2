"""Actors that have no model and answer at once. A module of its own: 64 processes import it, and none needs torch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.distributed.evaluator import GroupResult, Loaded, SearchEvaluator
from pipeline.distributed.kept_rows import rows_to_keep
from pipeline.prior import Prior
from pipeline.program import LayerProgram
from pipeline.search.group_search import search_group
from pipeline.shards.run_config import RunConfig
from pipeline.tasks import Example, Outcome, PreparedExample

NUM_LAYERS = 30
_POLL_SECONDS = 0.1


def stub_evaluator(gate: Path, *, num_actors: int) -> type[SearchEvaluator]:
    """A class of actors that are all ready at the same moment.

    Args:
        gate: An empty folder in which the actors announce themselves to each other.
        num_actors: Number of actors.
    """

    class StubEvaluator(SearchEvaluator):
        def load(self) -> Loaded:
            self._rows = plausible_rows(self._config)
            (gate / str(os.getpid())).touch()
            while len(list(gate.iterdir())) < num_actors:
                time.sleep(_POLL_SECONDS)
            return Loaded(facts={"class": "StubForCausalLM", "num_layers": NUM_LAYERS})

        def search(
            self, examples: Sequence[Example], prior: Prior | None = None, calibrates: bool = False
        ) -> GroupResult:
            rows = [
                {**row, "example_id": example.id, "prompt": example.question, "answer": example.answer}
                for example in examples
                for row in self._rows
            ]
            return GroupResult(rows=rows, failed={}, evaluations=[])

    return StubEvaluator


def plausible_rows(config: RunConfig) -> list[dict[str, Any]]:
    """The rows of one example, from a search whose programs are all right."""

    def score(
        examples: Sequence[PreparedExample], programs: Sequence[LayerProgram], *, need_response: bool
    ) -> list[Outcome]:
        return [
            Outcome(correct=True, reason="ended", margin=1.0, response="42", layer_executions=len(p)) for p in programs
        ]

    example = PreparedExample(example=example_of(0), prompt="", prompt_ids=[], answers=[])
    [searched] = search_group([example], num_layers=NUM_LAYERS, config=config, score=score)
    return rows_to_keep(searched, config)


def example_of(number: int) -> Example:
    """An example as long as those of real data sets."""
    worked = " ".join(f"{number} + {other} = {number + other}." for other in range(20))
    return Example(id=f"stub-{number:05d}", task="arithmetic", question=f"{worked} 40 + 2 =", answer="42")

"""The progress of a run: committed examples, programs run and actors."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from pipeline.shards.reader import ShardRecord


@dataclass(kw_only=True)
class Progress:
    """The progress of a run. The coordinator updates it; the progress bar only reads it.

    Sums are kept as records come in: a run has thousands of records, and is shown twice a second.

    Attributes:
        num_examples: Examples of the whole run.
        programs_an_example: Most programs that a search runs, the identity included.
        committed: Records of the committed groups, by this call and earlier ones; ``add`` takes a further record.
        done: Examples committed, by this call and earlier ones.
        resumed_examples: Of those, examples that were committed before this call.
        baseline_correct: Examples that the base model gets right.
        shorter: Examples that the model gets right, and a strictly shorter program too.
        corrected: Examples that the model gets wrong and a program right.
        base_reasons: Number of the base model's answers by their reason.
        failed_examples: Examples set aside, by this call and earlier ones.
        programs_run: Programs run by this call's actors.
        actors_ready: Actors that have loaded the model.
        actors_lost: Actors that failed and were replaced.
        calibrating: Whether calibration groups are being searched, and the others wait for the prior.
        started: When the coordinator began, on the monotonic clock.
    """

    num_examples: int
    programs_an_example: int
    committed: list[ShardRecord] = field(default_factory=list, init=False)
    done: int = field(default=0, init=False)
    resumed_examples: int = 0
    baseline_correct: int = field(default=0, init=False)
    shorter: int = field(default=0, init=False)
    corrected: int = field(default=0, init=False)
    base_reasons: Counter[str] = field(default_factory=Counter, init=False)
    failed_examples: int = field(default=0, init=False)
    programs_run: int = 0
    actors_ready: int = 0
    actors_lost: int = 0
    calibrating: bool = False
    started: float = field(default_factory=time.monotonic)

    def add(self, record: ShardRecord) -> None:
        """Add the counts of a committed work group."""
        self.committed.append(record)
        self.done += len(record.example_ids)
        self.baseline_correct += record.baseline_correct
        self.shorter += record.shorter
        self.corrected += record.corrected
        self.base_reasons.update(record.base_reasons)
        self.failed_examples += len(record.failed)

    @property
    def seconds(self) -> float:
        """Seconds since the coordinator began."""
        return time.monotonic() - self.started

    @property
    def complete(self) -> bool:
        """Whether every example is committed."""
        return self.done == self.num_examples

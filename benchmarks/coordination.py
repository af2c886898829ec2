"""The cost of the coordinator: the real one, with real commits to disk, and 64 actors that answer at once."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import ray

from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from benchmarks.scaling import ray_of_our_own
from benchmarks.stub_evaluator import example_of, stub_evaluator
from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.coordinator import Coordinator
from pipeline.model_source import ModelSource
from pipeline.shards.progress import Progress
from pipeline.shards.run_config import RunConfig, fingerprint
from pipeline.shards.run_folder import RunFolder

KEY = "coordinator_ms_per_example"
NUM_ACTORS = 64
GROUP_SIZE = 8


@dataclass(kw_only=True)
class Clock:
    """A reading of the driver's clocks.

    Attributes:
        wall: Seconds on the wall.
        blocked: Of those, seconds of waiting for actors.
        processor: Processor seconds of the driver's thread.
        examples: Number of examples that are done.
    """

    wall: float = 0.0
    blocked: float = 0.0
    processor: float = 0.0
    examples: int = 0

    def since(self, earlier: Clock) -> Clock:
        """The time and examples since an earlier reading."""
        return Clock(**{name: value - getattr(earlier, name) for name, value in vars(self).items()})

    def read(self, progress: Progress) -> Clock:
        """The present values of the clocks, in seconds, and of the counter."""
        return Clock(
            wall=time.perf_counter(), blocked=self.blocked, processor=time.thread_time(), examples=progress.done
        )


@contextmanager
def counting_waits(clock: Clock) -> Iterator[None]:
    """Let a clock count the time that ``ray.wait`` blocks."""
    wait = ray.wait

    def timed_wait(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return wait(*arguments, **options)
        finally:
            if options["timeout"]:  # a poll that does not wait is the coordinator's own work
                clock.blocked += time.perf_counter() - began

    with mock.patch.object(ray, "wait", timed_wait):
        yield


def coordinate(num_examples: int) -> Clock:
    """Run the coordinator over so many examples; the clock starts once every actor is ready."""
    examples = tuple(example_of(number) for number in range(num_examples))
    config = RunConfig(
        model=ModelSource(name="stub", location="nowhere", revision="none"),
        task="arithmetic",
        data_sha256=fingerprint(examples),
        group_size=GROUP_SIZE,
        device="cpu",
        dtype="float32",
    )
    clock, readings = Clock(), list[Clock]()

    def show(progress: Progress) -> None:
        if not readings and progress.actors_ready == NUM_ACTORS:
            readings.append(clock.read(progress))

    # Not the system's own folder for temporary files, which may be in memory: commits are to reach a disk.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch, counting_waits(clock):
        gate = Path(scratch) / "gate"
        gate.mkdir()
        folder = RunFolder(Path(scratch) / "run")
        folder.open(config, provenance={})
        coordinator = Coordinator(
            config=config,
            pool=PoolConfig(num_actors=NUM_ACTORS, cpus_per_actor=1, gpus_per_actor=0.0),
            examples=examples,
            folder=folder,
            committed={},
            show=show,
            evaluator=stub_evaluator(gate, num_actors=NUM_ACTORS),
        )
        progress = coordinator.run()
        finished = clock.read(progress)
        folder.close()
    assert progress.complete
    return finished.since(readings[0])


def measure(harness: Harness) -> Findings:
    """Run the coordinator once; the figure is a mean over thousands of examples."""
    harness.say(f"coordinator  starting {NUM_ACTORS} actors")
    with ray_of_our_own(num_cpus=NUM_ACTORS):
        took = coordinate(1000 if harness.quick else 4000)

    def cost(seconds: float) -> float:
        return 1000 * seconds / took.examples

    busy = cost(took.wall - took.blocked)
    harness.say(f"coordinator  {busy:.2f} ms an example over {took.examples} examples")
    details = {
        "examples": took.examples,
        "wall_ms": cost(took.wall),
        "blocked_ms": cost(took.blocked),
        "thread_processor_ms": cost(took.processor),
        "actors": NUM_ACTORS,
        "group_size": GROUP_SIZE,
    }
    return Findings(figures={KEY: busy}, details={KEY: details})


SECTION = BenchmarkSection(
    name="coordination",
    summary=f"the coordinator's own time an example, with {NUM_ACTORS} actors that answer at once",
    targets=(
        Target(
            key=KEY, bound=2.0, meaning="busy milliseconds of the driver an example, commits included", at_most=True
        ),
    ),
    measure=measure,
)

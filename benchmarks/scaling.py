"""Scaling: two actors against one, and the cost of a program by depth, examples and simulations."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import ray
from ray.util import ActorPool

from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from benchmarks.jobs import SearchGroups
from benchmarks.workloads import Workload, arc_examples, arithmetic_examples
from pipeline.distributed.evaluator import SearchEvaluator

KEY = "two_actors_over_one"
DEPTHS = (10, 20, 30)
EXAMPLES = (1, 4, 8, 16)
SIMULATIONS = (10, 25, 50)
#: Simulations where something else is varied.
FEW_SIMULATIONS = 20


def measure(harness: Harness) -> Findings:
    """Compare one and two actors, then vary one quantity at a time on one core."""
    figure, details = _actors(harness)
    most = 4 if harness.quick else 8
    return Findings(
        figures={KEY: figure},
        details={
            KEY: details,
            "cost_by_layers": {depth: _cost(harness, examples=most, depth=depth) for depth in DEPTHS},
            "cost_by_questions": {examples: _cost(harness, examples=examples) for examples in EXAMPLES},
            "cost_by_simulations": {
                simulations: _cost(harness, examples=most, simulations=simulations) for simulations in SIMULATIONS
            },
        },
    )


def _cost(harness: Harness, *, examples: int, simulations: int = FEW_SIMULATIONS, depth: int | None = None) -> float:
    """Milliseconds a program, for one group of examples by letter on one core.

    An answer by letter is one pass under any program. A generated answer takes more passes where a part of it is right,
    which depends on the depth.
    """
    workload = Workload(
        name="arc_letters", task="arc", examples=arc_examples(harness.sources, examples), simulations=simulations
    )
    config = replace(workload.config(harness.subject, seed=harness.seed), group_size=examples)
    job = SearchGroups(workload=workload, config=config, examples=workload.examples, depth=depth)
    timed = harness.time([job])
    cost = 1000 * timed.seconds / len(timed.results[0].pairs)
    layers = "all layers" if depth is None else f"{depth} layers"
    harness.say(f"cost         {examples:2} examples, {simulations} simulations, {layers:<10} {cost:8.2f} ms a program")
    return cost


def _actors(harness: Harness) -> tuple[float, dict[str, Any]]:
    """Wall time of one actor over that of two, on the same groups, which actors take one by one.

    There are many groups, because at the end one of two actors waits for the other, half a group's time on average.
    """
    num_groups, size, first_groups = (4, 2, 1) if harness.quick else (30, 4, 2)
    workload = Workload(
        name="arithmetic",
        task="arithmetic",
        examples=arithmetic_examples(harness.sources, num_groups * size),
        simulations=10,
    )
    config = replace(workload.config(harness.subject, seed=harness.seed), group_size=size)
    groups = [workload.examples[start : start + size] for start in range(0, num_groups * size, size)]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    gpus = 0.5 if harness.subject.device == "cuda" else 0
    with ray_of_our_own(num_cpus=2):
        actor_class = ray.remote(num_cpus=1, num_gpus=gpus, concurrency_groups={"progress": 1})(SearchEvaluator)
        actors = [actor_class.remote(config) for _ in range(2)]
        ray.get([actor.load.remote() for actor in actors])
        for repeat in range(harness.repeats):
            actors.reverse()  # neither is always the one that works alone
            for num_actors in (1, 2):
                # Not timed: an idle actor returns memory to the system, and allocating it again is slow.
                ray.get([actor.search.remote(group) for group in groups[:first_groups] for actor in actors])
                pool = ActorPool(actors[:num_actors])
                began = time.perf_counter()
                for _ in pool.map_unordered(lambda actor, group: actor.search.remote(group), groups):
                    pass
                seconds[num_actors].append(time.perf_counter() - began)
            ratio = seconds[1][-1] / seconds[2][-1]
            harness.say(f"actors       {repeat + 1}/{harness.repeats}  2 actors are {ratio:.2f} times as fast as 1")
    ratios = [one / two for one, two in zip(seconds[1], seconds[2])]
    details = {"ratios": ratios, "seconds_of_1": seconds[1], "seconds_of_2": seconds[2], "groups": num_groups}
    return median(ratios), details


@contextmanager
def ray_of_our_own(*, num_cpus: int) -> Iterator[None]:
    """A Ray cluster on this machine while it is needed: its daemons are never idle."""
    # Ray warns, many times, of more processes than four times what it starts at once.
    os.environ["RAY_worker_maximum_startup_concurrency"] = str(num_cpus)  # noqa: SIM112  (so Ray spells it)
    ray.init(address="local", num_cpus=num_cpus, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


SECTION = BenchmarkSection(
    name="scaling",
    summary="two actors against one; the cost of a program by layers, examples and simulations",
    targets=(Target(key=KEY, bound=1.9, meaning="speed of two actors over one, on two cores"),),
    measure=measure,
)

"""The share of layers that are really run where programs share the run of a common prefix.

A single pass runs a program whole: every layer on the text with its reference, and, where
that does not decide the verdict, every layer again for each token that is written. A layer counts once
for each text, or new token, that goes through it; keys and values that are recomputed for decoding, from
kept states, do not count.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from benchmarks.jobs import SearchGroups
from benchmarks.searches import GROUP_SIZE, UCB, WITHOUT_PRIOR, SearchMethod
from benchmarks.workloads import NUM_PROCESSES, Workload, held_out_examples

KEY = "layer_executions_ratio"


def measure(harness: Harness) -> Findings:
    """Count layers in searches of held-out examples; a count is the same in every repeat."""
    details = {method.name: _count(harness, method) for method in (UCB, WITHOUT_PRIOR)}
    for name, counted in details.items():
        harness.say(
            f"sharing      {name}: {counted['layers_run']:,} layers run of {counted['layers_asked']:,} in the programs"
        )
    return Findings(figures={KEY: details[UCB.name]["ratio"]}, details={KEY: details})


def _count(harness: Harness, method: SearchMethod) -> dict[str, Any]:
    run = requested = programs = 0
    examples = held_out_examples(harness.sources, quick=harness.quick)
    size = GROUP_SIZE * NUM_PROCESSES
    for start in range(0, len(examples), size):
        workload = Workload(
            name="arithmetic",
            task="arithmetic",
            examples=tuple(examples[start : start + size]),
            simulations=20 if harness.quick else 50,
        )
        config = workload.config(harness.subject, search=method.config, seed=harness.seed)
        jobs = [SearchGroups(workload=workload, config=config, examples=group) for group in workload.groups]
        for found in harness.time(jobs).results:
            run += found.layers_run
            requested += found.layers_asked
            programs += len(found.pairs)
    return {"layers_run": run, "layers_asked": requested, "ratio": run / requested, "programs": programs}


SECTION = BenchmarkSection(
    name="sharing",
    summary="layers that are run, over the layers of the programs",
    targets=(
        Target(
            key=KEY, bound=0.5, meaning="layers run, over running programs whole; plain UCB, no prior", at_most=True
        ),
    ),
    measure=measure,
)

"""How many layers are really run, where programs that begin alike run their beginning once."""

from __future__ import annotations

from benchmarks.jobs import SearchGroup
from benchmarks.lab import Findings, Lab, Section, Target
from benchmarks.workloads import NUM_PROCESSES, PLAIN_UCB, Workload, arithmetic_questions

KEY = "layer_executions_ratio"


def measure(lab: Lab) -> Findings:
    """Count layers in a search of arithmetic questions; a count is the same in every repeat."""
    workload = Workload(
        name="arithmetic",
        task="arithmetic",
        examples=arithmetic_questions(lab.sources, (4 if lab.quick else 8) * NUM_PROCESSES),
        simulations=20 if lab.quick else 50,
    )
    config = workload.config(lab.model, search=PLAIN_UCB, seed=lab.seed)
    timed = lab.time([SearchGroup(workload=workload, config=config, examples=group) for group in workload.groups])
    layers_run = sum(searched.layers_run for searched in timed.results)
    layers_asked = sum(searched.layers_asked for searched in timed.results)
    lab.say(f"sharing      {layers_run:,} layers run of {layers_asked:,} that the programs ask for")
    return Findings(
        figures={KEY: layers_run / layers_asked},
        details={
            KEY: {
                "layers_run": layers_run,
                "layers_asked": layers_asked,
                "programs": sum(len(searched.evaluations) for searched in timed.results),
                "leaves": workload.leaves,
            }
        },
    )


SECTION = Section(
    name="sharing",
    summary="layers really run over those that the programs ask for",
    targets=(
        Target(key=KEY, bound=0.5, meaning="layers run over programs' lengths, plain UCB on arithmetic", at_most=True),
    ),
    measure=measure,
)

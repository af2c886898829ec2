"""Programs a second: our search against the baselines, on examples and programs that our search ran.

In each repeat our search runs whole and each baseline runs a part of the same pairs, one after the other.
A baseline may use the cores as processes of one thread or as one process of several: both are tried on a few
pairs first, and the faster way is measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from statistics import median
from typing import Any, TypeVar

from benchmarks.baseline_runners import Baseline, ProgramMajor, Released, SinglePass
from benchmarks.harness import BenchmarkSection, Findings, Harness, Target, Timed
from benchmarks.jobs import RunBaseline, SearchGroups
from benchmarks.workloads import NUM_PROCESSES, Workload, throughput_workloads
from pipeline.program import LayerProgram
from pipeline.tasks import Example, Outcome

Item = TypeVar("Item")
#: Examples with their programs, as one process runs them.
Share = list[tuple[Example, LayerProgram]]
#: The examples and programs that one process of ours ran, with their outcomes.
Pairs = list[tuple[Example, LayerProgram, Outcome]]

OURS = "ours"
#: Pairs of each process on which the two ways are tried.
TRIED_PAIRS = 2
BASELINES: dict[str, type[Baseline]] = {"released": Released, "single_pass": SinglePass, "program_major": ProgramMajor}
#: Whether a baseline runs in the one process of several threads.
WAYS = {False: f"{NUM_PROCESSES} processes of 1 thread", True: f"1 process of {NUM_PROCESSES} threads"}


@dataclass(kw_only=True)
class Comparison:
    """The measurements on one workload.

    Attributes:
        workload: The workload.
        rates: Programs a second of ours and of each baseline, repeat by repeat.
        wide: Whether a baseline is faster in one process of several threads.
        compared: Number of our verdicts that were compared with those of single passes.
        different: Number of those that differ.
        margin_difference: The largest difference between their margins.
    """

    workload: Workload
    rates: dict[str, list[float]] = field(default_factory=dict)
    wide: dict[str, bool] = field(default_factory=dict)
    compared: int = 0
    different: int = 0
    margin_difference: float = 0.0

    def ratio(self, baseline: str) -> float:
        """Our programs a second over a baseline's."""
        return median(self._ratios(baseline))

    def details(self, baseline: str) -> dict[str, Any]:
        """The rates and the ratios behind a figure, for ``latest.json``."""
        return {
            "ratios": self._ratios(baseline),
            "our_programs_a_second": self.rates[OURS],
            "peer_programs_a_second": self.rates[baseline],
            "peer_ran_as": WAYS[self.wide[baseline]],
        }

    def verdicts(self) -> dict[str, Any]:
        """A comparison of our verdicts with those of single passes."""
        return {
            "verdicts_compared": self.compared,
            "verdicts_different": self.different,
            "largest_margin_difference": self.margin_difference,
        }

    def _ratios(self, baseline: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.rates[OURS], self.rates[baseline])]


def measure(harness: Harness) -> Findings:
    """Run every workload against every baseline."""
    comparisons = {}
    for workload in throughput_workloads(harness.sources, quick=harness.quick):
        comparison = comparisons[workload.name] = Comparison(workload=workload)
        for repeat in range(harness.repeats):
            _run(harness, comparison, repeat)
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name, comparison in comparisons.items():
        for baseline in BASELINES:
            key = f"{name}_over_{baseline}"
            details[key] = comparison.details(baseline)
            if any(target.key == key for target in TARGETS):
                figures[key] = comparison.ratio(baseline)
    figures["least_over_program_major"] = min(comparison.ratio("program_major") for comparison in comparisons.values())
    details["verdicts"] = {name: comparison.verdicts() for name, comparison in comparisons.items()}
    for key in ("verdicts_compared", "verdicts_different"):
        details[key] = sum(verdicts[key] for verdicts in details["verdicts"].values())
    harness.say(f"{details['verdicts_different']} of {details['verdicts_compared']} verdicts differ from single passes")
    return Findings(figures=figures, details=details)


def _run(harness: Harness, comparison: Comparison, repeat: int) -> None:
    """One repeat: ours, then each baseline."""
    workload = comparison.workload
    config = workload.config(harness.subject, seed=harness.seed)
    ours = harness.time([SearchGroups(workload=workload, config=config, examples=group) for group in workload.groups])
    found = [result.pairs for result in ours.results]
    _note(harness, comparison, repeat, OURS, sum(map(len, found)) / ours.seconds)
    rng = random.Random(f"{workload.name} {harness.seed} {repeat}")
    for name, baseline in BASELINES.items():
        shares = _shares(workload, name, found, rng)
        outcomes = _run_baseline(harness, comparison, repeat, name, baseline, shares)
        if name == "single_pass":
            _compare(comparison, found, list(chain(*shares)), outcomes)


def _run_baseline(
    harness: Harness, comparison: Comparison, repeat: int, name: str, baseline: type[Baseline], shares: list[Share]
) -> list[Outcome]:
    """Run a baseline in its faster way; the outcomes are in the order of the shares."""

    def run(shares: list[Share], *, wide: bool) -> Timed[list[Outcome]]:
        parts = [list(chain(*shares))] if wide else shares
        return harness.time(
            [RunBaseline(workload=comparison.workload, baseline=baseline, pairs=part) for part in parts], wide=wide
        )

    if name not in comparison.wide:
        # Threads on cores that other processes use can take for ever; a quick run does not try.
        few = [
            share[: len(comparison.workload.groups[0]) if baseline is ProgramMajor else TRIED_PAIRS] for share in shares
        ]
        comparison.wide[name] = not harness.quick and run(few, wide=True).seconds < run(few, wide=False).seconds
    wide = comparison.wide[name]
    timed = run(shares, wide=wide)
    _note(harness, comparison, repeat, name, sum(map(len, shares)) / timed.seconds, f" ({WAYS[wide]})")
    return list(chain(*timed.results))


def _note(harness: Harness, comparison: Comparison, repeat: int, name: str, rate: float, way: str = "") -> None:
    comparison.rates.setdefault(name, []).append(rate)
    harness.say(
        f"{comparison.workload.name:<12} {repeat + 1}/{harness.repeats}  {name:<14} {rate:8.2f} programs/s{way}"
    )


def _shares(workload: Workload, baseline: str, found: list[Pairs], rng: random.Random) -> list[Share]:
    """The pairs of each process: a part of those that its group's search ran."""
    if baseline == "program_major":
        # Its best case: all examples in flight want the same programs at the same time.
        programs = list(dict.fromkeys(program for part in found for _, program, _ in part))
        chosen = spread(programs, workload.shared_programs, rng)
        return [[(example, program) for program, example in product(chosen, group)] for group in workload.groups]
    count = workload.released_pairs if baseline == "released" else workload.single_pass_pairs
    return [[(example, program) for example, program, _ in spread(part, count // len(found), rng)] for part in found]


def spread(items: Sequence[Item], count: int, rng: random.Random) -> list[Item]:
    """Items at even distances, from a random first one."""
    count = min(count, len(items))
    offset = rng.random()
    return [items[int((index + offset) * len(items) / count)] for index in range(count)]


def _compare(comparison: Comparison, found: list[Pairs], pairs: Share, outcomes: list[Outcome]) -> None:
    """Compare our verdicts with those of the same programs run one by one."""
    ours = {(example.id, program): outcome for part in found for example, program, outcome in part}
    for (example, program), theirs in zip(pairs, outcomes, strict=True):
        known = ours[example.id, program]
        comparison.compared += 1
        comparison.different += known.correct != theirs.correct
        if math.isfinite(known.margin) and math.isfinite(theirs.margin):
            comparison.margin_difference = max(comparison.margin_difference, abs(known.margin - theirs.margin))


TARGETS = (
    Target(
        key="arc_letters_over_released", bound=4.0, meaning="programs a second on ARC by letter, to the released search"
    ),
    Target(key="arc_letters_over_single_pass", bound=2.0, meaning="the same, to one forward a program"),
    Target(
        key="arithmetic_over_released", bound=8.0, meaning="programs a second on arithmetic, to the released search"
    ),
    Target(
        key="gsm8k64_over_released", bound=8.0, meaning="programs a second on GSM8K, 64 tokens, to the released search"
    ),
    Target(
        key="least_over_program_major",
        bound=1.8,
        meaning="the least of the three tasks, to batches of equal programs",
    ),
)

SECTION = BenchmarkSection(
    name="throughput",
    summary="programs a second against the released search, single passes and batches of equal programs",
    targets=TARGETS,
    measure=measure,
)

"""The quality of searches: at equal evaluations, and the time to reach the quality of the plain searches.

The examples are held out: the prior is fitted to others, of the training split. A search's quality is
two numbers, mean saved layers where the base model is right, and the share of its wrong answers that
the search corrects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from benchmarks.baseline_runners import Baseline, Released, SinglePass
from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from benchmarks.jobs import RunBaseline, SearchGroups
from benchmarks.searches import (
    GROUP_SIZE,
    GUIDED,
    RANDOM,
    RELEASED,
    SEARCH_METHODS,
    UCB,
    WITHOUT_PRIOR,
    BaselineSearch,
    SearchMethod,
    Trail,
)
from benchmarks.throughput import WAYS
from benchmarks.workloads import KINDS, NUM_PROCESSES, Workload, held_out_examples, times_and_sums
from pipeline.prior import Prior, fit_prior
from pipeline.program import LayerProgram
from pipeline.shards.run_config import DEFAULT_CALIBRATION, RunConfig, fingerprint
from pipeline.tasks import Example

SHOWN = (2, 5, 10, 20, 50)
#: Pairs by which a baseline's faster use of the cores is found.
_PROBED = 16


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of a search over all examples.

    Attributes:
        saved: Mean saved layers where the base model is right.
        corrected: Of the examples that the base model gets wrong, the share with a right program.
    """

    saved: float
    corrected: float

    @classmethod
    def of(cls, trails: Sequence[Trail], simulations: int) -> Quality:
        """The quality of trails after ``simulations`` simulations an example."""
        right = [trail.after(simulations) or 0 for trail in trails if trail.baseline_correct]
        wrong = [trail.after(simulations) is not None for trail in trails if not trail.baseline_correct]
        return cls(saved=sum(right) / max(len(right), 1), corrected=sum(wrong) / max(len(wrong), 1))

    def reaches(self, other: Quality) -> bool:
        """Whether this quality is at least as good as another in both numbers."""
        return self.saved >= other.saved and self.corrected >= other.corrected


def shares(examples: Sequence[Example]) -> list[Sequence[Example]]:
    """The examples of each process, dealt out in turn."""
    return [examples[first::NUM_PROCESSES] for first in range(NUM_PROCESSES)]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The settings that all searches of this section share."""

    harness: Harness
    config: RunConfig
    examples: list[Example]
    simulations: int
    prior: Prior
    calibration_seconds: float

    @classmethod
    def prepare(cls, harness: Harness) -> Setting:
        """Choose the examples, and calibrate on others."""
        examples = held_out_examples(harness.sources, quick=harness.quick)
        config = RunConfig(
            model=harness.subject.source,
            task="arithmetic",
            data_sha256=fingerprint(examples),
            seed=harness.seed,
            device=harness.subject.device,
            dtype=harness.subject.dtype,
        )
        simulations = 10 if harness.quick else 50
        calibration_examples = times_and_sums(
            "train", GROUP_SIZE * NUM_PROCESSES if harness.quick else DEFAULT_CALIBRATION, seed=harness.seed
        )
        timed = harness.time(_jobs(harness, WITHOUT_PRIOR, calibration_examples, simulations))
        evaluations = [each for found in timed.results for item in found.searched for each in item.evaluations()]
        prior = fit_prior(evaluations, compare_margins=True)
        assert prior is not None
        harness.say(
            f"quality      calibrated on {len(calibration_examples)} examples of the training split "
            f"in {timed.seconds:.0f} s"
        )
        return cls(
            harness=harness,
            config=config,
            examples=examples,
            simulations=simulations,
            prior=prior,
            calibration_seconds=timed.seconds,
        )

    def search(self, method: SearchMethod, simulations: int | None = None) -> tuple[list[Trail], float]:
        """Search every example on our engine; returns the trails and the seconds."""
        jobs = _jobs(
            self.harness,
            method,
            self.examples,
            self.simulations if simulations is None else simulations,
            prior=self.prior if method.guided else None,
        )
        timed = self.harness.time(jobs)
        done = [item for found in timed.results for item in found.searched]
        return [Trail.of(item.prepared.example.id, item.tree) for item in done], timed.seconds

    def search_by_baseline(
        self, method: SearchMethod, baseline: type[Baseline], examples: Sequence[Example], *, wide: bool
    ) -> tuple[list[Trail], float]:
        """Search examples on a baseline; the seconds leave out the making of stock models."""
        timed = self.harness.time(
            [
                BaselineSearch(
                    method=method, baseline=baseline, config=self.config, examples=share, simulations=self.simulations
                )
                for share in ([examples] if wide else shares(examples))
            ],
            wide=wide,
        )
        making = sum(result.making_seconds for result in timed.results) / len(timed.results)
        return [trail for result in timed.results for trail in result.trails], timed.seconds - making

    def faster_way(self, baseline: type[Baseline]) -> bool:
        """Whether a baseline is faster in the one process of several threads."""
        workload = Workload(name="probe", task="arithmetic", examples=tuple(self.examples[:_PROBED]), simulations=1)
        # The identity program of whatever depth the model has is known only where the model is.
        depth = self.prior.num_layers
        pairs = [(example, LayerProgram.identity(depth)) for example in workload.examples]
        seconds = {}
        for wide in WAYS:
            parts = [pairs] if wide else [pairs[first::NUM_PROCESSES] for first in range(NUM_PROCESSES)]
            jobs = [RunBaseline(workload=workload, baseline=baseline, pairs=part) for part in parts]
            seconds[wide] = self.harness.time(jobs, wide=wide).seconds
        return min(seconds, key=lambda wide: seconds[wide])


def _jobs(
    harness: Harness, method: SearchMethod, examples: Sequence[Example], simulations: int, *, prior: Prior | None = None
) -> list[SearchGroups]:
    """A method's searches on our engine, a job for each process."""
    workload = Workload(
        name="arithmetic",
        task="arithmetic",
        examples=tuple(examples),
        simulations=simulations,
        leaves=method.leaves,
    )
    config = replace(workload.config(harness.subject, search=method.config, seed=harness.seed), group_size=GROUP_SIZE)
    return [
        SearchGroups(workload=workload, config=config, examples=share, selector=method.selector, prior=prior)
        for share in shares(examples)
    ]


def measure(harness: Harness) -> Findings:
    """Quality at equal evaluations, then the time to the plain searches' quality."""
    setting = Setting.prepare(harness)
    trails: dict[str, list[Trail]] = {}
    for method in SEARCH_METHODS:
        trails[method.name], seconds = setting.search(method)
        reached = Quality.of(trails[method.name], setting.simulations)
        harness.say(
            f"quality      {method.name:<32} {reached.saved:5.2f} layers saved, "
            f"{100 * reached.corrected:3.0f} % corrected ({seconds:.0f} s)"
        )
    figures = _at_equal_evaluations(trails, setting.simulations)
    details: dict[str, Any] = {"search_quality": _details(setting, trails)}
    for key, method, baseline in (
        ("time_to_released_quality", RELEASED, Released),
        ("time_to_random50_quality", RANDOM, SinglePass),
    ):
        figures[key], details[key] = _time_to_quality(setting, trails[GUIDED.name], method, baseline)
        harness.say(
            f"quality      {key} {figures[key]:.1f}; {details[key]['ratio_with_calibration']:.1f} with the calibration"
        )
    return Findings(figures=figures, details=details)


def _at_equal_evaluations(trails: dict[str, list[Trail]], simulations: int) -> dict[str, float]:
    guided, ucb = trails[GUIDED.name], trails[UCB.name]
    random = Quality.of(trails[RANDOM.name], simulations)
    few = min(10, simulations)
    return {
        "evaluations_to_random_50": float(_first(guided, Quality(saved=random.saved, corrected=0), simulations)),
        "saved_at_50_over_ucb": Quality.of(guided, simulations).saved / max(Quality.of(ucb, simulations).saved, 1e-9),
        "corrected_at_10_over_ucb": Quality.of(guided, few).corrected / max(Quality.of(ucb, few).corrected, 1e-9),
    }


def _first(trails: list[Trail], goal: Quality, simulations: int) -> int:
    """Simulations until a search reaches a quality; one more than ``simulations`` where it never does."""
    reached = (count for count in range(1, simulations + 1) if Quality.of(trails, count).reaches(goal))
    return next(reached, simulations + 1)


def _time_to_quality(
    setting: Setting, guided: list[Trail], method: SearchMethod, baseline: type[Baseline]
) -> tuple[float, dict[str, Any]]:
    """The time of a plain search over the time that ours takes to reach the same quality.

    In each repeat the plain search takes minutes on a part of the examples; our search runs on all examples.
    """
    harness = setting.harness
    wide = setting.faster_way(baseline)
    theirs: list[Trail] = []
    blocks, ours = [], []
    # From the same searches on our engine, whose verdicts are the same, we know when to stop.
    for repeat in range(harness.repeats):
        found, seconds = setting.search_by_baseline(
            method, baseline, setting.examples[repeat :: harness.repeats], wide=wide
        )
        theirs += found
        blocks.append(seconds)
        harness.say(f"quality      {method.name}, part {repeat + 1} of {harness.repeats}: {seconds:.0f} s")
        if repeat == 0:
            enough = _first(guided, Quality.of(theirs, setting.simulations), setting.simulations)
        ours.append(setting.search(GUIDED, enough)[1])
    goal = Quality.of(theirs, setting.simulations)
    needed = _first(guided, goal, setting.simulations)
    if needed != enough:  # the first part was not like the whole
        ours = [setting.search(GUIDED, needed)[1] for _ in range(harness.repeats)]
    # Where our search never reaches the quality, both ratios are 0.
    reached = needed <= setting.simulations
    return sum(blocks) / median(ours) if reached else 0.0, {
        "reached": reached,
        "their_seconds": blocks,
        "our_seconds": ours,
        "their_saved": goal.saved,
        "their_corrected": goal.corrected,
        "their_programs": sum(len(trail.saved) + 1 for trail in theirs),
        "our_simulations": needed,
        "calibration_seconds": setting.calibration_seconds,
        "ratio_with_calibration": sum(blocks) / (median(ours) + setting.calibration_seconds) if reached else 0.0,
        "peer_ran_as": WAYS[wide],
    }


def _details(setting: Setting, trails: dict[str, list[Trail]]) -> dict[str, Any]:
    def of(kept: list[Trail]) -> dict[str, Any]:
        best = [trail.best for trail in kept if trail.best]
        shown = [count for count in SHOWN if count <= setting.simulations]
        return {
            "right": sum(trail.baseline_correct for trail in kept),
            "wrong": sum(not trail.baseline_correct for trail in kept),
            "saved_after": {count: round(Quality.of(kept, count).saved, 3) for count in shown},
            "corrected_after": {count: round(Quality.of(kept, count).corrected, 3) for count in shown},
            "solved": len(best),
            "distinct_best_programs": len(set(best)),
        }

    return {
        name: {**of(found), **{kind: of([t for t in found if f"-{kind}-" in t.example_id]) for kind in KINDS}}
        for name, found in trails.items()
    }


SECTION = BenchmarkSection(
    name="quality",
    summary="what searches find at equal evaluations, and the time to find as much as the released one",
    targets=(
        Target(
            key="time_to_released_quality",
            bound=40.0,
            meaning="time of the released search, over ours to its quality, our calibration left out",
        ),
        Target(
            key="time_to_random50_quality",
            bound=12.0,
            meaning="time of 50 random edits, over ours to their quality, likewise",
        ),
        Target(
            key="evaluations_to_random_50",
            bound=10,
            meaning="evaluations to save as many layers as 50 random edits",
            at_most=True,
        ),
        Target(key="saved_at_50_over_ucb", bound=1.7, meaning="layers saved after 50 evaluations, to plain UCB"),
        Target(key="corrected_at_10_over_ucb", bound=1.2, meaning="share corrected after 10 evaluations, to plain UCB"),
    ),
    measure=measure,
)

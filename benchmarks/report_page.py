"""The report of a large run: how long it takes to write, how large it is, and how long a browser takes to show it."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.browser import chromium, chromium_is_here
from benchmarks.harness import BenchmarkSection, Findings, Harness, Target
from pipeline.model_source import ModelSource
from pipeline.program import LayerProgram
from pipeline.report.write_report import write_report
from pipeline.shards.run_config import RunConfig
from pipeline.shards.run_folder import RunFolder

SIZE, SECONDS = "report_megabytes", "report_seconds_to_open"
EXAMPLES, KEPT, DEPTH = 10_000, 8, 30
GROUP = 500


def measure(harness: Harness) -> Findings:
    """Write a made-up run of 10,000 examples and its report, and open that in headless Chromium."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        make_run(run, examples=EXAMPLES // (20 if harness.quick else 1))
        began = time.perf_counter()
        page = Path(scratch) / "page.html"
        write_report(run, page)
        writing = time.perf_counter() - began
        figures = {SIZE: page.stat().st_size / 1e6}
        harness.say(f"pages        a report of {figures[SIZE]:.2f} MB, written in {writing:.1f} s")
        opening = opened(page, harness.repeats) if chromium_is_here() else []
    if opening:
        figures[SECONDS] = median(opening)
        harness.say(f"pages        opened in {figures[SECONDS]:.2f} s")
    else:
        harness.say("pages        not opened: Debian's chromium and chromium-driver are not here")
    details = {"writing_seconds": writing, "opening_seconds": opening, "questions": EXAMPLES, "kept": KEPT}
    return Findings(figures=figures, details={SIZE: details})


def opened(page: Path, times: int) -> list[float]:
    """Seconds from the navigation's start to the end of the load event, as the browser counts them."""
    seconds = []
    with chromium() as driver:
        for _ in range(times):
            driver.get(page.as_uri())
            took = driver.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
            seconds.append(took / 1000)
    return seconds


def make_run(folder: Path, *, examples: int) -> None:
    """A run of random programs and verdicts."""
    config = RunConfig(
        model=ModelSource(name="made", location="nowhere", revision="none"),
        task="made",
        data_sha256="none",
        keep=KEPT,
        device="cpu",
        dtype="float32",
    )
    rng = random.Random(0)
    writer = RunFolder(folder)
    writer.open(config, provenance={})
    for group, start in enumerate(range(0, examples, GROUP)):
        rows: list[dict[str, Any]] = []
        improvements: dict[str, list[list[int]]] = {}
        for number in range(start, min(start + GROUP, examples)):
            made = _rows(f"made-{number}", rng, config)
            rows += made
            improvements[f"made-{number}"] = [
                [50 - 10 * index, row["length"]] for index, row in enumerate(made[:3]) if row["rank"] == index + 1
            ][::-1]
        writer.commit(group, rows, improvements=improvements)
    writer.close()


def _rows(example_id: str, rng: random.Random, config: RunConfig) -> list[dict[str, Any]]:
    identity = LayerProgram.identity(DEPTH)
    programs = {LayerProgram.from_counts(rng.choices([0, 1, 2], [2, 8, 1], k=DEPTH)) for _ in range(KEPT)}
    right = sorted(
        (program for program in programs if program.within(1.0)), key=lambda program: (len(program), program.layers)
    )
    base_right = rng.random() < 0.5
    ranked = [*right, identity] if base_right else right
    return [
        {
            "example_id": example_id,
            "task": config.task,
            "prompt": "made",
            "answer": "made",
            "response": None,
            "program": list(program.layers),
            "counts": list(program.counts or ()),
            "length": len(program),
            "num_layers": DEPTH,
            "saved_layers": program.saved_layers,
            "correct": program in ranked,
            "score": 1.0 if program in ranked else -1.0,
            "baseline_correct": base_right,
            "is_best": ranked[:1] == [program],
            "rank": ranked.index(program) + 1 if program in ranked else 0,
            "simulations": config.search.simulations,
            "evaluations": config.search.simulations + 1,
            "layer_executions": 0,
            "model": config.model.name,
            "run_id": config.run_id,
        }
        for program in dict.fromkeys([*right, identity])
    ]


SECTION = BenchmarkSection(
    name="pages",
    summary=f"the report of a run of {EXAMPLES:,} examples: its size, and the time to open it",
    targets=(
        Target(key=SIZE, bound=5.0, meaning="size of the page", at_most=True),
        Target(key=SECONDS, bound=2.0, meaning="seconds until headless Chromium shows it", at_most=True),
    ),
    measure=measure,
)

"""A search whose actors are killed every 20 seconds and whose driver is killed twice, against an undisturbed one.

Both searches use two actors and the embedded model; the section compares the data sets, byte for byte, and the layers
that all actors ran, those of repeated work included.

    python -m benchmarks.chaos OUT COUNTS EXAMPLES    one of the searches, as the section starts it
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import psutil

from benchmarks.harness import MODEL, BenchmarkSection, Findings, Harness, Target
from pipeline.cli.search import run_and_show
from pipeline.distributed.cluster import Resources
from pipeline.distributed.coordinator import Coordinator
from pipeline.distributed.evaluator import SearchEvaluator
from pipeline.search.config import PRESETS
from pipeline.workflows import run_search as run
from pipeline.workflows.search_request import SearchRequest

MORE_LAYERS, DIFFERING = "chaos_more_layers", "chaos_differing_files"
EXAMPLES, QUICK_EXAMPLES = 200, 48
#: The search of a killed actor's group starts anew: where actors die so often, groups are small.
GROUP_SIZE = 2
ACTORS = 2
KILL_SECONDS = 20.0
DRIVER_DEATHS = 2
LIMIT_SECONDS = 3600.0


def counting_evaluator(counts: Path) -> type[SearchEvaluator]:
    """Actors that note after every step how many layers they have run."""

    class CountingEvaluator(SearchEvaluator):
        def _count(self, programs: int) -> None:
            super()._count(programs)
            # No rename: an actor that is killed here has counted up to the step before.
            (counts / str(os.getpid())).write_text(str(self._model.layers_run))

    return CountingEvaluator


def start(out: Path, counts: Path, examples: int) -> subprocess.Popen[bytes]:
    """Start one of the searches in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.chaos", str(out), str(counts), str(examples)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_ADDRESS": "local"},  # a cluster of its own, apart from any other on this machine
    )


def layers_run(counts: Path) -> int:
    """Layers that all actors ran, dead or alive."""
    return sum(int(file.read_text() or 0) for file in counts.iterdir())


def data_set(out: Path) -> dict[str, bytes]:
    """The files of a run's data set, its calibration and its prior."""
    files = [*(out / "paths").iterdir(), *(out / "calibration").iterdir(), out / "prior.safetensors"]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in sorted(files)}


def disturb(out: Path, counts: Path, examples: int) -> tuple[int, int]:
    """Disturb a search until it is done; returns the numbers of killed actors and drivers."""
    rng, groups = random.Random(0), examples // GROUP_SIZE
    deaths = [(number + 1) * groups // (DRIVER_DEATHS + 1) for number in range(DRIVER_DEATHS)]
    actors = drivers = 0
    process, next_kill, began = start(out, counts, examples), time.monotonic() + KILL_SECONDS, time.monotonic()
    while process.poll() is None or (drivers and process.returncode == -signal.SIGKILL):
        if time.monotonic() - began > LIMIT_SECONDS:
            raise RuntimeError("the disturbed search does not come to its end")
        time.sleep(0.2)
        committed = len(list((out / "manifest").glob("*.json"))) if out.exists() else 0
        if drivers < len(deaths) and committed >= deaths[drivers]:
            process.kill()
            process.wait()
            drivers += 1
            process = start(out, counts, examples)
        elif time.monotonic() >= next_kill:
            next_kill = time.monotonic() + KILL_SECONDS
            victims = _actors(process)
            if victims:
                rng.choice(victims).kill()
                actors += 1
    if process.returncode:
        raise RuntimeError(f"the disturbed search ended with {process.returncode}")
    return actors, drivers


def _actors(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "CountingEvaluator" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def measure(harness: Harness) -> Findings:
    """Search undisturbed and disturbed, and compare the two."""
    examples = QUICK_EXAMPLES if harness.quick else EXAMPLES
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        peace, chaos, *counts = (Path(scratch) / name for name in ("peace", "chaos", "peace-counts", "chaos-counts"))
        for folder in counts:
            folder.mkdir()
        harness.say(f"chaos        {examples} examples in peace")
        process = start(peace, counts[0], examples)
        if process.wait():
            raise RuntimeError(f"the undisturbed search ended with {process.returncode}")
        harness.say(f"chaos        {examples} examples, an actor killed every {KILL_SECONDS:g} s, the driver twice")
        actors, drivers = disturb(chaos, counts[1], examples)
        wanted, found = data_set(peace), data_set(chaos)
        differing = sum(wanted.get(name) != found.get(name) for name in wanted.keys() | found.keys())
        layers = [layers_run(folder) for folder in counts]
    more = layers[1] / layers[0] - 1
    harness.say(
        f"chaos        {actors} actors and {drivers} drivers killed; {differing} of {len(wanted)} files differ, "
        f"{100 * more:.1f} % more layers"
    )
    return Findings(
        figures={MORE_LAYERS: more, DIFFERING: float(differing)},
        details={
            MORE_LAYERS: {
                "questions": examples,
                "group_size": GROUP_SIZE,
                "actors": ACTORS,
                "layers_in_peace": layers[0],
                "layers_in_chaos": layers[1],
                "actors_killed": actors,
                "drivers_killed": drivers,
            }
        },
    )


SECTION = BenchmarkSection(
    name="chaos",
    summary="a search whose actors and driver are killed against one in peace (15 minutes)",
    targets=(
        Target(key=MORE_LAYERS, bound=0.25, meaning="more layers run than in peace", at_most=True),
        Target(key=DIFFERING, bound=0.0, meaning="files of the data set that differ", at_most=True),
    ),
    measure=measure,
)


def main() -> None:
    """Run one search of the section, as a process of its own."""
    out, counts, examples = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    request = SearchRequest(
        model=MODEL,
        task="arithmetic",
        out=out,
        limit=examples,
        search=PRESETS["default"]["drllm"],
        group_size=GROUP_SIZE,
        resources=Resources(device="cpu", num_actors=ACTORS),
    )
    with mock.patch.object(run, "Coordinator", partial(Coordinator, evaluator=counting_evaluator(counts))):
        sys.exit(run_and_show(request))


if __name__ == "__main__":
    main()

"""The harness: processes that hold the model, a clock around their jobs, and the types that all sections share.

Nothing else runs while something is timed: a process without work waits at its pipe.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from rich.console import Console

from benchmarks.workloads import NUM_PROCESSES, Sources, Subject
from pipeline.engine import FrozenModel
from pipeline.shards.run_config import DEFAULT_CACHE_GIB

MODEL = "smollm2"
CACHE_BYTES = int(DEFAULT_CACHE_GIB * (1 << 30))

Result = TypeVar("Result")
#: Prepares the work on a process's model, and returns the function that is timed. It is sent to
#: the process, so it must be a top-level function or an object of a top-level class.
Job = Callable[[FrozenModel], Callable[[], Result]]


@dataclass(frozen=True, kw_only=True)
class Timed(Generic[Result]):
    """The results of jobs, and the seconds from their common start to the last one's end."""

    seconds: float
    results: list[Result]


class HarnessProcess:
    """A process with one copy of the model.

    Args:
        subject: The model to load, and where.
        threads: Torch threads that it uses.
    """

    def __init__(self, subject: Subject, *, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, subject, threads), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Give the process a job, or a sign to go on."""
        self._pipe.send(message)

    def receive(self) -> Any:
        """Wait for the next answer of the process.

        Raises:
            RuntimeError: The job failed there, or the process is gone.
        """
        try:
            failed, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError("a benchmark's process ended; is there enough memory for one more model?") from None
        if failed:
            raise RuntimeError(f"a benchmark's process failed:\n{answer}")
        return answer

    def close(self) -> None:
        """Stop the process, and wait until it has ended."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, subject: Subject, threads: int) -> None:
    """Run a process: load the model; then for each job prepare, wait for the sign, run and answer."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    try:
        model = FrozenModel.load(
            subject.source.location, device=subject.device, dtype=subject.dtype, cache_bytes=CACHE_BYTES
        )
        pipe.send((False, None))
        while True:
            _work(pipe, model)
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return  # the harness is closed, or interrupted
    except Exception:  # any failure of a job: ``receive`` raises it again
        pipe.send((True, traceback.format_exc()))


def _work(pipe: Connection, model: FrozenModel) -> None:
    """Do one job; what it prepared is freed at the return."""
    run = pipe.recv()(model)
    gc.collect()
    pipe.send((False, None))
    pipe.recv()
    pipe.send((False, run()))
    model.forget()


@dataclass(kw_only=True)
class Harness:
    """Runs the jobs of sections; use as a context manager, which ends its processes.

    Attributes:
        sources: Sources of the examples.
        quick: Whether to run little, which tests that the benchmarks work, and not how fast they are.
        repeats: Number of repeats of each comparison; figures are medians.
        seed: Seed of everything random.
        console: Console on which progress is shown.
        subject: The model that is measured.
    """

    subject: Subject
    sources: Sources
    quick: bool
    repeats: int
    seed: int = 0
    console: Console = field(default_factory=Console)
    _open: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    @cached_property
    def narrow(self) -> list[HarnessProcess]:
        """Processes of one thread, one for each core; they start when they are first wanted."""
        return self._start([1] * NUM_PROCESSES)

    @cached_property
    def wide(self) -> list[HarnessProcess]:
        """The one process of as many threads."""
        return self._start([NUM_PROCESSES])

    def time(self, jobs: Sequence[Job[Result]], *, wide: bool = False) -> Timed[Result]:
        """Make jobs ready, start them together and wait for all.

        Args:
            jobs: One for each process of one thread, or for some of them.
            wide: Take the process of several threads, for the one job.
        """
        workers = self.wide if wide else self.narrow
        assert len(jobs) <= len(workers)
        chosen = workers[: len(jobs)]
        for worker, job in zip(chosen, jobs):
            worker.send(job)
        for worker in chosen:
            worker.receive()
        began = time.perf_counter()
        for worker in chosen:
            worker.send("go")
        results = [worker.receive() for worker in chosen]
        return Timed(seconds=time.perf_counter() - began, results=results)

    def _start(self, threads: list[int]) -> list[HarnessProcess]:
        workers = [HarnessProcess(self.subject, threads=number) for number in threads]
        for worker in workers:
            self._open.callback(worker.close)
        for worker in workers:
            worker.receive()  # it has loaded the model
        return workers

    def say(self, line: str) -> None:
        """Show a line of progress."""
        self.console.print(line, highlight=False)


@dataclass(frozen=True, kw_only=True)
class Target:
    """The target of a figure.

    Attributes:
        key: Key of the figure.
        bound: The figure's limit.
        meaning: Meaning of the figure.
        at_most: Whether the limit is the highest value allowed; otherwise it is the lowest.
    """

    key: str
    bound: float
    meaning: str
    at_most: bool = False

    def met(self, figure: float) -> bool:
        """Whether a figure reaches the target."""
        return figure <= self.bound if self.at_most else figure >= self.bound


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The measurements of a section.

    Attributes:
        figures: By key, a number for each of the section's targets.
        details: By key, the numbers behind a figure, or others that are only noted.
    """

    figures: dict[str, float]
    details: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSection:
    """A part of the benchmark.

    Attributes:
        name: Name of the section, for ``--only``.
        summary: One line for ``--help``.
        targets: One for each of its figures.
        measure: Measures the figures.
    """

    name: str
    summary: str
    targets: tuple[Target, ...]
    measure: Callable[[Harness], Findings]

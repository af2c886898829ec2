"""Does each row of the fault table fail without the guard that it tests? Takes the guards away one by one, and looks.

    python tests/faults/mutations.py [NAME …]

A guard is a function, method or constant, named where it is; another stands in its place in the processes of the tests:
in pytest itself (``conftest.py``), in drivers (``driver.py``) and in actors (``stub.py``), which all call
``remove_guards``. No production code knows of it. Not a test, since it takes minutes; run it after changing a guard.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
#: Names, in the processes of the tests, the mutation whose guards are gone.
VARIABLE = "DRLLM_TESTS_WITHOUT"
#: A run that hangs without its guard has failed.
LIMIT_SECONDS = 90

COORDINATOR = "pipeline.distributed.coordinator"
FAILURES = "pipeline.distributed.failure_policy"
QUEUE = "pipeline.distributed.work_queue:WorkQueue"
FOLDER = "pipeline.shards.run_folder:RunFolder"
LOCAL = "pipeline.storage.local_writer:LocalWriter"
RETRY = "pipeline.storage.retry"


@dataclass(frozen=True)
class Guard:
    """Something that a fault row relies on.

    Attributes:
        name: Where it is: ``module:function``, ``module:Class.method`` or ``module:CONSTANT``.
        without: From the guard to what stands in its place.
    """

    name: str
    without: Callable[[Any], Any]

    def owner(self) -> tuple[Any, str]:
        """The module or class that has it, and its name there.

        Raises:
            AttributeError: It is not there.
        """
        module, _, path = self.name.partition(":")
        owner: Any = importlib.import_module(module)
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        getattr(owner, name)
        return owner, name

    def remove(self) -> None:
        """Let this process do without it."""
        owner, name = self.owner()
        replacement = self.without(getattr(owner, name))
        if isinstance(inspect.getattr_static(owner, name), staticmethod):
            replacement = staticmethod(replacement)
        setattr(owner, name, replacement)


@dataclass(frozen=True)
class Mutation:
    """Guards that are taken away together.

    Attributes:
        tests: The tests that must fail then, as ``-k`` names them.
        guards: The guards.
    """

    tests: str
    guards: tuple[Guard, ...]


def returns(value: Any) -> Callable[[Any], Any]:
    """A function that does nothing in a guard's place."""
    return lambda guard: lambda *arguments, **options: value


def constant(value: Any) -> Callable[[Any], Any]:
    """Another value in a guard's place."""
    return lambda guard: value


def afterwards(do: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that does as the guard and then something else, whose result counts if there is one."""

    def without(guard: Any) -> Any:
        def mutated(*arguments: Any, **options: Any) -> Any:
            result = guard(*arguments, **options)
            return result if (other := do(*arguments, **options)) is None else other

        return mutated

    return without


def record_first(commit: Any) -> Any:
    def mutated(self: Any, group: int, rows: Any, **options: Any) -> Any:
        self._write_text(f"manifest/group-{group:06d}.json", "{}")
        return commit(self, group, rows, **options)

    return mutated


def evaluations_last(commit: Any) -> Any:
    from pipeline.shards.calibration import to_table

    def mutated(self: Any, group: int, rows: Any, *, evaluations: Any = None, **options: Any) -> Any:
        record = commit(self, group, rows, **options)
        if evaluations is not None:
            self._write_table(self._evaluations_file(group), to_table(evaluations))
        return record

    return mutated


def set_all_aside(split_or_set_aside: Any) -> Any:
    def mutated(self: Any, chunk: Any, reason: str) -> Any:
        self._groups[chunk.group].failed |= dict.fromkeys(chunk.indices, reason)
        return self._finalize(chunk.group)

    return mutated


def no_interrupt(function: Any) -> Any:
    """The function, to which Ctrl-C is an exception like any other."""
    names = {**function.__globals__, "KeyboardInterrupt": ZeroDivisionError}
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)


_EXTRA: list[int] = []


def actors_first(initialize: Any) -> Any:
    def mutated(self: Any, **options: Any) -> None:
        _EXTRA.append(options["pool"].num_actors - 1)
        initialize(self, **options)

    return mutated


def more_in_a_group(groups: Any) -> Any:
    return lambda examples, size, extended_at: groups(examples, size + _EXTRA[-1], extended_at)


def patient_grader(self: Any, *arguments: Any, **options: Any) -> None:
    self.seconds = 3600.0


DEATH_ENDS_THE_RUN = Guard(f"{FAILURES}:MAX_DEATHS_IN_A_ROW", constant(1))
WHOLE_CHUNKS_FAIL = Guard(f"{QUEUE}._split_or_set_aside", set_all_aside)
RECORD_FIRST = Guard(f"{FOLDER}._commit", record_first)
NOTHING_IS_COMMITTED = Guard(f"{FOLDER}._resume", afterwards(lambda *_: {}))
MUTATIONS = (
    Mutation("killed_while_it_evaluates", (DEATH_ENDS_THE_RUN,)),
    Mutation("dies_before_it_has_loaded", (Guard(f"{FAILURES}:FailurePolicy._pause_seconds", returns(1e12)),)),
    Mutation("actor_is_broken", (Guard(f"{FAILURES}:MAX_EXCEPTIONS_IN_A_ROW", constant(102)),)),
    Mutation("three_actors_by_chance", (Guard(f"{QUEUE}._needs_joint_search", returns(False)),)),
    Mutation("crashes_its_actors", (WHOLE_CHUNKS_FAIL,)),
    Mutation("beyond_its_actors", (WHOLE_CHUNKS_FAIL,)),
    Mutation("beyond_its_actors", (Guard(f"{FAILURES}:MAX_EXCEPTIONS_IN_A_ROW", constant(1)),)),
    Mutation("an_example_hangs", (Guard(f"{COORDINATOR}:Coordinator._replace_stalled", returns(None)),)),
    Mutation(
        "a_grader_hangs", (Guard("pipeline.tasks.scoring.math_grader:MathGrader.__init__", afterwards(patient_grader)),)
    ),
    Mutation("takes_long_at_the_end", (Guard(f"{COORDINATOR}:Coordinator._overdue_chunks", returns(frozenset())),)),
    Mutation("a_node_is_removed", (DEATH_ENDS_THE_RUN,)),
    Mutation("a_node_is_preempted", (Guard("pipeline.distributed.search_actors:is_preempted", returns(False)),)),
    Mutation("a_node_comes_later", (Guard(f"{COORDINATOR}:Coordinator._grow", returns(None)),)),
    Mutation("not_on_one_node", (Guard(f"{COORDINATOR}:Coordinator._others_may_work", returns(False)),)),
    Mutation("model_is_nowhere", (Guard(f"{COORDINATOR}:_is_user_error", returns(False)),)),
    Mutation("in_a_commit and not bucket and (staged or checked)", (Guard(f"{LOCAL}._drop_leftovers", returns(None)),)),
    Mutation("in_a_commit and not bucket and moved", (RECORD_FIRST,)),
    Mutation("in_a_commit and not bucket and (recorded or between)", (NOTHING_IS_COMMITTED,)),
    Mutation(
        "in_a_commit and calibrated",
        (Guard(f"{FOLDER}.commit", evaluations_last), Guard(f"{FOLDER}._has_evaluations", returns(True))),
    ),
    Mutation("in_a_commit and prior", (Guard(f"{COORDINATOR}:Coordinator._resume_calibration", returns(None)),)),
    Mutation("commit_to_a_bucket and (staged or moved)", (RECORD_FIRST,)),
    Mutation("commit_to_a_bucket and (recorded or between)", (NOTHING_IS_COMMITTED,)),
    Mutation("commit_to_a_bucket", (Guard("pipeline.storage.lease:Lease._expires", returns(False)),)),
    Mutation("bucket_fails_now_and_then", (Guard(f"{RETRY}:PAUSES", lambda pauses: dict.fromkeys(pauses, ())),)),
    Mutation("stop and 15", (Guard("pipeline.distributed.cluster:_interrupt_on_sigterm", returns(None)),)),
    Mutation("stop and 2]", (Guard("pipeline.cli.search:run_and_show", no_interrupt),)),
    Mutation("disk_is_full", (Guard(f"{LOCAL}._check_staged", returns(None)),)),
    Mutation(
        "another_number_of_workers",
        (
            Guard(f"{COORDINATOR}:Coordinator.__init__", actors_first),
            Guard(f"{COORDINATOR}:work_groups", more_in_a_group),
        ),
    ),
)


def remove_guards() -> None:
    """Take away the guards of the mutation that the environment names, if it names one; once in a process."""
    number = os.environ.get(VARIABLE)
    if number is not None and not _REMOVED:
        _REMOVED.append(number)
        for guard in MUTATIONS[int(number)].guards:
            guard.remove()


_REMOVED: list[str] = []


def failing(number: int) -> tuple[int, int]:
    """Tests that fail and tests that pass without the guards of a mutation.

    Raises:
        ValueError: The tests do not run.
    """
    mutation = MUTATIONS[number]
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tests/faults/test_fault_table.py"),
            *("-k", mutation.tests, "--timeout", str(LIMIT_SECONDS), "-p", "no:cacheprovider"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), VARIABLE: str(number)},
        capture_output=True,
        text=True,
    )
    last = process.stdout.strip().splitlines()[-1]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (failed|passed|error)", last)}
    if process.returncode not in (0, 1) or not counts:
        raise ValueError(f"the tests of {mutation.tests!r} do not run:\n{process.stdout[-2000:]}")
    return counts.get("failed", 0) + counts.get("error", 0), counts.get("passed", 0)


def main() -> None:
    """Take the guards away one by one."""
    surviving = 0
    for number, mutation in enumerate(MUTATIONS):
        if sys.argv[1:] and not any(name in mutation.tests for name in sys.argv[1:]):
            continue
        failed, passed = failing(number)
        surviving += passed
        print(f"{mutation.tests}: {failed} fail, {passed} pass", flush=True)
    sys.exit(surviving > 0)


if __name__ == "__main__":
    main()

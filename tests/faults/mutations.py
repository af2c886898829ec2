"""Does each row of the fault table fail without the guard that it tests? Takes the guards away one by one, and looks.

    python tests/faults/mutations.py [NAME …]

Works in a copy of the repository. No test, since it takes minutes; whoever touches a guard runs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COORDINATOR, WORKLIST = "pipeline/coordinator.py", "pipeline/worklist.py"
SHARDS, LOCAL = "pipeline/shards.py", "pipeline/storage/local.py"
#: A run that hangs without its guard has failed.
LIMIT_SECONDS = 90


@dataclass(frozen=True)
class Mutation:
    """A guard that is taken away.

    Attributes:
        tests: The tests that must fail then, as ``-k`` names them.
        changes: For each file what is replaced by what.
    """

    tests: str
    changes: tuple[tuple[str, str, str], ...]


DEATH_ENDS_THE_RUN = (
    COORDINATOR,
    "            if not alive:\n",
    "            if not alive:\n                raise cause\n",
)
WHOLE_PIECES_FAIL = (
    (WORKLIST, "        elif len(piece) > 1:\n", "        elif False:\n"),
    (
        WORKLIST,
        "            self._groups[piece.group].failed[piece.start] = reason\n",
        "            for place in range(piece.start, piece.stop):\n"
        "                self._groups[piece.group].failed[place] = reason\n",
    ),
)
MUTATIONS = (
    Mutation("killed_while_it_evaluates", (DEATH_ENDS_THE_RUN,)),
    Mutation("dies_before_it_has_loaded", ((COORDINATOR, "time.monotonic() + min(LONGEST", "1e12 + min(LONGEST"),)),
    Mutation("crashes_its_actors", WHOLE_PIECES_FAIL),
    Mutation("beyond_its_actors", WHOLE_PIECES_FAIL),
    Mutation("beyond_its_actors", ((COORDINATOR, "            if not alive:\n", "            if True:\n"),)),
    Mutation("an_example_hangs", ((COORDINATOR, "                self._replace_stuck()\n", ""),)),
    Mutation("a_grader_hangs", (("pipeline/tasks/grading.py", "get(timeout=self.seconds)", "get(timeout=3600)"),)),
    Mutation("takes_long_at_the_end", ((COORDINATOR, " or self._work.copy(self._is_overdue)", ""),)),
    Mutation("a_node_is_removed", (DEATH_ENDS_THE_RUN,)),
    Mutation(
        "a_node_is_preempted",
        (
            (
                COORDINATOR,
                "        if _is_preempted(error):\n            self._work",
                "        if False:\n            self._work",
            ),
        ),
    ),
    Mutation("a_node_comes_later", ((COORDINATOR, "        self._grow()\n", ""),)),
    Mutation(
        "not_on_one_node",
        ((COORDINATOR, "        if self.progress.actors_ready or self._any_loads():\n            return\n", ""),),
    ),
    Mutation("staged or checked", ((LOCAL, "            leftover.unlink()\n", "            pass\n"),)),
    Mutation(
        "moved",
        (
            (
                SHARDS,
                '        name = f"group-{group:06d}"\n',
                '        name = f"group-{group:06d}"\n        self._write_text(f"manifest/{name}.json", "{}")\n',
            ),
        ),
    ),
    Mutation("recorded or between", ((SHARDS, "        return committed\n", "        return {}\n"),)),
    Mutation(
        "stop and 15",
        (("pipeline/cluster.py", "        signal.signal(signal.SIGTERM, interrupt)\n", "        pass\n"),),
    ),
    Mutation(
        "stop and 2]", (("pipeline/cli.py", "    except KeyboardInterrupt:\n", "    except ZeroDivisionError:\n"),)
    ),
    Mutation("disk_is_full", ((LOCAL, "                check(staged.read_bytes())\n", "                pass\n"),)),
    Mutation(
        "another_number_of_workers",
        ((COORDINATOR, "size = config.group_size\n", "size = config.group_size + pool.num_actors - 1\n"),),
    ),
)


def failing(mutation: Mutation) -> tuple[int, int]:
    """Tests that fail and tests that pass without a guard.

    Raises:
        ValueError: The guard is not there any more.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".git", ".venv", "*cache*", "runs", "routers"))
        for file, guard, without in mutation.changes:
            text = (copy / file).read_text()
            if guard not in text:
                raise ValueError(f"{file} has no {guard!r}")
            (copy / file).write_text(text.replace(guard, without, 1))
        process = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "tests/faults/test_fault_table.py"),
                *("-k", mutation.tests, "--timeout", str(LIMIT_SECONDS), "-p", "no:cacheprovider"),
            ],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
        lines = process.stdout.splitlines()
        failed = sum(line.startswith(("FAILED", "ERROR")) for line in lines) or "Timeout" in process.stdout
        collected = subprocess.run(
            [*(sys.executable, "-m", "pytest", "--collect-only", "tests/faults"), "-k", mutation.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
        found = sum("::test_" in line for line in collected.stdout.splitlines())
    return int(failed), found - int(failed)


def main() -> None:
    """Take the guards away one by one."""
    surviving = 0
    for mutation in MUTATIONS:
        if sys.argv[1:] and not any(name in mutation.tests for name in sys.argv[1:]):
            continue
        failed, passed = failing(mutation)
        surviving += passed
        print(f"{mutation.tests}: {failed} fail, {passed} pass", flush=True)
    sys.exit(surviving > 0)


if __name__ == "__main__":
    main()

"""Does each row of the fault table fail without the guard that it tests? Takes the guards away one by one, and looks.

    python tests/faults/mutations.py [NAME …]

Works in a copy of the repository. No test, since it takes minutes; whoever touches a guard runs it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COORDINATOR, WORKLIST = "pipeline/distributed/coordinator.py", "pipeline/distributed/work_queue.py"
FOLDER, LOCAL = "pipeline/shards/run_folder.py", "pipeline/storage/local_writer.py"
PATIENCE = "pipeline/storage/retry.py"
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
    "            worker.exceptions_in_a_row += 1\n",
    "            if not alive:\n                raise cause\n",
)
WHOLE_PIECES_FAIL = (
    (WORKLIST, "            self._suspect.extend(piece.halves())\n            return None\n", "            pass\n"),
    (
        WORKLIST,
        "        state.failed[piece.places[0]] = reason\n",
        "        state.failed |= dict.fromkeys(piece.places, reason)\n",
    ),
)
RECORD_FIRST = (
    FOLDER,
    "        name = _name_of(group)\n",
    '        name = _name_of(group)\n        self._write_text(f"manifest/{name}.json", "{}")\n',
)
LESSON = """        if evaluations is not None:
            self._write_table(self._lesson(group), calibration.to_table(evaluations))
"""
NOTHING_IS_COMMITTED = (FOLDER, "        return committed\n", "        return {}\n")
MUTATIONS = (
    Mutation("killed_while_it_evaluates", (DEATH_ENDS_THE_RUN,)),
    Mutation("dies_before_it_has_loaded", ((COORDINATOR, "time.monotonic() + min(LONGEST", "1e12 + min(LONGEST"),)),
    Mutation(
        "actor_is_broken",
        ((COORDINATOR, "IN_A_ROW:\n                self._bury", "IN_A_ROW + 99:\n                self._bury"),),
    ),
    Mutation("three_actors_by_chance", ((WORKLIST, "len(state.results) > 1 and state.rest is None", "False"),)),
    Mutation("crashes_its_actors", WHOLE_PIECES_FAIL),
    Mutation("beyond_its_actors", WHOLE_PIECES_FAIL),
    Mutation(
        "beyond_its_actors",
        ((COORDINATOR, "            if not alive or worker.exc", "            if True or worker.exc"),),
    ),
    Mutation("an_example_hangs", ((COORDINATOR, "                self._replace_stuck()\n", ""),)),
    Mutation("a_grader_hangs", (("pipeline/tasks/math_grader.py", "get(timeout=self.seconds)", "get(timeout=3600)"),)),
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
    Mutation(
        "model_is_nowhere",
        ((COORDINATOR, "            raise UserError(str(error)) from None\n", "            pass\n"),),
    ),
    Mutation(
        "in_a_commit and not bucket and (staged or checked)",
        ((LOCAL, "            leftover.unlink()\n", "            pass\n"),),
    ),
    Mutation("in_a_commit and not bucket and moved", (RECORD_FIRST,)),
    Mutation("in_a_commit and not bucket and (recorded or between)", (NOTHING_IS_COMMITTED,)),
    Mutation(
        "in_a_commit and taught",
        (
            (FOLDER, LESSON + "        return self._commit(", "        record = self._commit("),
            (FOLDER, "    def _commit(\n", LESSON + "        return record\n\n    def _commit(\n"),
            (FOLDER, "(group not in teaching or is_there(self.root / self._lesson(group)))", "True"),
        ),
    ),
    Mutation(
        "in_a_commit and prior",
        ((COORDINATOR, "            self._learn_if_taught()\n            while not", "            while not"),),
    ),
    Mutation("commit_to_a_bucket and (staged or moved)", (RECORD_FIRST,)),
    Mutation("commit_to_a_bucket and (recorded or between)", (NOTHING_IS_COMMITTED,)),
    Mutation(
        "commit_to_a_bucket",
        (("pipeline/storage/lease.py", "        while time.monotonic() < deadline:\n", "        while True:\n"),),
    ),
    Mutation(
        "bucket_fails_now_and_then",
        (
            (PATIENCE, "(0.5, 1.0, 2.0, 4.0)", "()"),
            (PATIENCE, "(1.0, 2.0, 4.0, 8.0, 16.0)", "()"),
        ),
    ),
    Mutation(
        "stop and 15",
        (("pipeline/distributed/cluster.py", "        signal.signal(signal.SIGTERM, interrupt)\n", "        pass\n"),),
    ),
    Mutation(
        "stop and 2]",
        (("pipeline/cli/search.py", "    except KeyboardInterrupt:\n", "    except ZeroDivisionError:\n"),),
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
                *(sys.executable, "-m", "pytest", "tests/faults/test_fault_table.py"),
                *("-k", mutation.tests, "--timeout", str(LIMIT_SECONDS), "-p", "no:cacheprovider"),
            ],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
    last = process.stdout.strip().splitlines()[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (failed|passed|error)", last)}
    if process.returncode not in (0, 1) or not counts:
        raise ValueError(f"the tests of {mutation.tests!r} do not run:\n{process.stdout[-2000:]}")
    return counts.get("failed", 0) + counts.get("error", 0), counts.get("passed", 0)


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

"""Actors without a model that search as real ones do, and fail as a test plans.

Results are hashes of question and program, so that a run is the same on any actor; margins depend in their last digits
on the batch, as those of real models do. Faults are planned by files in a folder: ``<what>
<where>`` is done whenever an actor comes there, ``once <what> <where>`` the first time alone, and with ``once2 …``
beside it the second time too. Where is an example, or ``start`` or ``load``.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from mutations import remove_guards

from pipeline.distributed.evaluator import GroupResult, Loaded, SearchEvaluator
from pipeline.distributed.kept_rows import rows_to_keep
from pipeline.errors import UserError
from pipeline.search.group_search import search_group
from pipeline.tasks import Outcome, PreparedExample

NUM_LAYERS = 8
WAIT_SECONDS = 60.0


def digest(*parts: Any) -> int:
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode()).digest()[:8])


def evaluator(faults: Path, *, pause: float = 0.0) -> type[SearchEvaluator]:
    """A class of actors.

    Args:
        faults: The folder of what goes wrong.
        pause: Seconds that a step of a group's searches takes.
    """

    class FaultyEvaluator(SearchEvaluator):
        def __init__(self, config) -> None:
            remove_guards()
            super().__init__(config)
            self._broken = False
            self._fail("start")

        def load(self) -> Loaded:
            (faults / f"actor {os.getpid()}").touch()
            self._fail("load")
            return Loaded(facts={"class": "StubForCausalLM", "num_layers": NUM_LAYERS})

        def search(self, examples, prior=None, calibrates=False) -> GroupResult:
            for example in examples:
                self._fail(example.id)
            self._batch = digest(*(example.id for example in examples)) % 1000
            searched = search_group(
                [
                    PreparedExample(example=example, prompt=example.question, prompt_ids=[1], answers=[])
                    for example in examples
                ],
                num_layers=NUM_LAYERS,
                config=self._config,
                score=self._score,
                prior=prior,
                on_step=self._count,
            )
            return GroupResult(
                rows=[row for item in searched for row in rows_to_keep(item, self._config)],
                failed={},
                evaluations=[evaluation for item in searched for evaluation in item.evaluations()]
                if calibrates
                else [],
                improvements={item.prepared.example.id: item.improvements() for item in searched},
            )

        def _score(self, questions, programs, *, need_response) -> list[Outcome]:
            time.sleep(pause)
            outcomes = []
            for question, program in zip(questions, programs):
                number = digest(question.example.id, program)
                correct = number % 3 == 0
                margin = (1 + number % 1000 / 100) * (1 + self._batch * 1e-6)
                outcomes.append(
                    Outcome(
                        correct=correct,
                        reason="ended" if correct else "unequal",
                        margin=margin if correct else -margin,
                        response="42",
                        layer_executions=len(program),
                    )
                )
            return outcomes

        def _fail(self, where: str) -> None:
            import ray

            if self._broken:
                raise RuntimeError("an illegal memory access was encountered")
            for what in ("die", "raise", "break", "lack", "refuse", "hang", "grade", "wait"):
                if not self._is_planned(f"{what} {where}"):
                    continue
                if what == "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                elif what == "raise":
                    raise RuntimeError(f"{where} is beyond me")
                elif what == "break":
                    self._broken = True
                    self._fail(where)
                elif what == "lack":
                    raise UserError("there is no such model anywhere")
                elif what == "refuse":
                    node = faults / "bad node"
                    if not node.exists():
                        node.write_text(ray.get_runtime_context().get_node_id())
                    if node.read_text() == ray.get_runtime_context().get_node_id():
                        raise UserError("there is no such model here")
                elif what == "grade":
                    self._grade()
                else:
                    time.sleep(3600 if what == "hang" else WAIT_SECONDS)

        def _grade(self) -> None:
            """Ask a grader that thinks for ever; math-verify's own alarm would not reach it either."""
            from pipeline.tasks.scoring.math_grader import MathGrader

            grader = MathGrader(seconds=1.0)
            assert grader.equal(r"\boxed{2}", "2.0") and grader._process is not None
            os.kill(grader._process.pid, signal.SIGSTOP)
            assert not grader.equal(r"\boxed{3}", "3.0")

        def _is_planned(self, what: str) -> bool:
            if (faults / what).exists():
                return True
            for planned in sorted(faults.glob(f"once* {what}")):
                try:
                    planned.rename(faults / f"done {planned.name}")
                except FileNotFoundError:
                    continue  # another actor was first
                return True
            return False

    return FaultyEvaluator

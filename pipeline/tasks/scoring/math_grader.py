"""Mathematical equality that cannot hang the run: math-verify in a process that is killed in time.

math-verify guards itself with signals, which reach neither other threads nor a computation inside C
code; a process boundary holds against both.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Literal, TypeAlias

from pipeline.tasks.scoring.final_answer import final_answer
from pipeline.tasks.scoring.math_notation import differ_in_notation, read_answer

#: ``ungradable``: math-verify cannot read the answer or the reference, or takes too long.
Comparison: TypeAlias = Literal["equal", "unequal", "ungradable"]

_START_SECONDS = 120.0


class MathGrader:
    """Compares a solution's final answer with a reference.

    The process starts at the first comparison that needs it, and is replaced after it had to be killed.

    Args:
        seconds: Time limit of one comparison, in seconds; a comparison that exceeds it is ungradable.
    """

    def __init__(self, *, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._known: dict[tuple[str, str], Comparison] = {}

    def equal(self, solution: str, reference: str, *, ended: bool = False) -> bool:
        """Whether a solution states the reference as its final answer; see ``final_answer`` and ``compare``."""
        stated = final_answer(solution, ended=ended)
        return stated is not None and self.compare(stated, reference) == "equal"

    def compare(self, answer: str, reference: str) -> Comparison:
        """Compare an answer with a reference.

        Units, bases and spaces between digits are read here (``math_notation``), the rest by math-verify.

        Args:
            answer: The answer, in LaTeX or plain text, without a box.
            reference: The reference, likewise.

        Raises:
            RuntimeError: The process does not start.
        """
        if answer.strip() == reference.strip():
            return "equal"
        key = (answer, reference)
        if key not in self._known:
            if len(self._known) >= 10_000:
                self._known.clear()
            ours, theirs = read_answer(answer), read_answer(reference)
            differ = differ_in_notation(ours, theirs)
            self._known[key] = "unequal" if differ else self._ask_process(ours.text, theirs.text)
        return self._known[key]

    def close(self) -> None:
        """End the process; a later comparison starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask_process(self, answer: str, reference: str) -> Comparison:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died between two comparisons, so this one is not the cause
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([answer, reference]) + "\n")
            process.stdin.flush()
            comparison: Comparison = json.loads(self._lines.get(timeout=self.seconds))
        except (queue.Empty, OSError, ValueError):
            # The comparison took too long, or the process died of it (an empty line stands for its end).
            self.close()
            return "ungradable"
        return comparison

    def _start(self) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("math_grader_process.py")
        process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(process.stdout, lines), daemon=True).start()
        try:
            ready = lines.get(timeout=_START_SECONDS)
        except queue.Empty:
            ready = ""
        if ready.strip() != "ready":
            process.kill()
            raise RuntimeError("the math grader does not start; is math-verify installed?")
        self._process, self._lines = process, lines
        return process


def _forward(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")

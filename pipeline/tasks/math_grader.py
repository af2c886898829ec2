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
from typing import IO

_START_SECONDS = 120.0


class MathGrader:
    r"""Compares a written solution's final answer with a reference.

    The process starts at the first comparison that needs it, and is replaced after it had to be killed.

    Args:
        seconds: Time limit of one comparison, in seconds; a comparison that exceeds it counts as not equal.
    """

    def __init__(self, *, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._known: dict[tuple[str, str], bool] = {}

    def equal(self, response: str, reference: str) -> bool:
        r"""True if the response's final answer (its last ``\boxed{…}``, or expression) is the reference."""
        key = (response, reference)
        if key not in self._known:
            if len(self._known) >= 10_000:
                self._known.clear()
            self._known[key] = self._boxed_verbatim(response, reference) or self._compare(response, reference)
        return self._known[key]

    def close(self) -> None:
        """End the process; a later comparison starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @staticmethod
    def _boxed_verbatim(response: str, reference: str) -> bool:
        return response.rstrip().endswith(f"\\boxed{{{reference}}}")

    def _compare(self, response: str, reference: str) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died between two comparisons, so this one is not the cause
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([response, reference]) + "\n")
            process.stdin.flush()
            return bool(json.loads(self._lines.get(timeout=self.seconds)))
        except (queue.Empty, OSError, ValueError):
            # The comparison took too long, or the process died of it (an empty line stands for its end).
            self.close()
            return False

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

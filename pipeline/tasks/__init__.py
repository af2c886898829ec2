"""Tasks: a question becomes an ``Example``, a program's answer an ``Outcome``."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import UserError
from pipeline.tasks.arc import ARC, ARC_LIKELIHOOD
from pipeline.tasks.arithmetic import ARITHMETIC
from pipeline.tasks.math_problems import DART_MATH, GSM8K
from pipeline.tasks.prompt_answer import PAIRS
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.task import Task
from pipeline.tasks.types import DataRequest, Example, Outcome, Question

__all__ = ["TASKS", "DataRequest", "Example", "Outcome", "Question", "Task", "get_task"]

TASKS: dict[str, Task] = {task.name: task for task in (ARITHMETIC, ARC, ARC_LIKELIHOOD, GSM8K, DART_MATH, PAIRS)}


def get_task(name: str, *, max_new_tokens: int | None = None) -> Task:
    """The task of that name, with another length of answers if given.

    Raises:
        UserError: The name is unknown, or the task generates nothing.
    """
    if name not in TASKS:
        raise UserError(f"unknown task {name!r}; choose one of: {', '.join(TASKS)}")
    task = TASKS[name]
    if max_new_tokens is None:
        return task
    if isinstance(task.scoring, Choice):
        raise UserError(f"task {name!r} generates no text; leave --max-new-tokens out")
    if max_new_tokens < 1:
        raise UserError(f"--max-new-tokens must be at least 1, got {max_new_tokens}")
    return replace(task, scoring=replace(task.scoring, max_new_tokens=max_new_tokens))  # type: ignore[type-var]

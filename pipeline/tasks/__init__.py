"""Tasks: where examples come from, what the model reads, and when an answer is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches

from pipeline.errors import UserError
from pipeline.search.plug_in import is_reference, load_object, located
from pipeline.storage import without_secrets
from pipeline.tasks.arc import ARC, ARC_LIKELIHOOD
from pipeline.tasks.arithmetic import ARITHMETIC, arithmetic_task
from pipeline.tasks.math_problems import DART_MATH, GSM8K
from pipeline.tasks.prompt_answer import PROMPT_ANSWER, prompt_answer_task
from pipeline.tasks.prompting import Prompting
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.task import Task
from pipeline.tasks.task_options import TaskOptions
from pipeline.tasks.types import DataRequest, Example, Outcome, PreparedExample

__all__ = [
    "TASKS",
    "DataRequest",
    "Example",
    "Outcome",
    "PreparedExample",
    "Task",
    "TaskOptions",
    "get_task",
    "read_or_explain",
]

TASKS: dict[str, Task] = {
    task.name: task for task in (ARITHMETIC, ARC, ARC_LIKELIHOOD, GSM8K, DART_MATH, PROMPT_ANSWER)
}
NO_OPTIONS = TaskOptions()


def get_task(
    name: str,
    *,
    max_new_tokens: int | None = None,
    options: TaskOptions = NO_OPTIONS,
    prompting: Prompting | None = None,
) -> Task:
    """The task of that name, or the one that ``my_package.my_module:TASK`` names.

    Args:
        name: The name. A task from outside, and its examples, carry the reference instead of the task's own name:
            every process and every later command finds the task by it.
        max_new_tokens: Most tokens of a written answer; None for the task's own default.
        options: The options of the task.
        prompting: The settings of the prompts; None for those of a new run.

    Raises:
        UserError: The name is unknown, the task has no such options, its model writes no text, or it shall think and
            writes no solution.
    """
    options.check_task(name)
    if is_reference(name):
        task = load_object(name, Task, role="task")
        task = replace(task, name=name, read=_refusing_broken_examples(name, task.read))
    elif name == PROMPT_ANSWER.name:
        task = prompt_answer_task(options)
    elif name == ARITHMETIC.name:
        task = arithmetic_task(options)
    elif name in TASKS:
        task = TASKS[name]
    else:
        near = get_close_matches(name, TASKS, n=1)
        raise UserError(
            f"unknown task {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}choose one of: {', '.join(TASKS)}; "
            "or name your own as my_package.my_module:TASK"
        )
    if prompting is not None:
        if prompting.thinking and not task.may_think:
            raise UserError(f"task {name!r} takes an answer at the prompt's end; leave --thinking out")
        task = replace(task, prompting=prompting)
    if max_new_tokens is None:
        return task
    if not task.scoring.generates:
        raise UserError(f"task {name!r} generates no text; leave --max-new-tokens out")
    if max_new_tokens < 1:
        raise UserError(f"--max-new-tokens must be at least 1, got {max_new_tokens}")
    return replace(task, scoring=task.scoring.with_max_new_tokens(max_new_tokens))


def read_or_explain(task: Task, request: DataRequest) -> list[Example]:
    """A task's examples.

    Args:
        task: The task.
        request: The source, the split and the number of the examples.

    Raises:
        UserError: There is no data, it cannot be read, or the task's examples have fewer renderings.
    """
    if task.needs_data and request.data is None:
        hint = f", for example --data {task.hub_data}" if task.hub_data else ""
        raise UserError(f"task {task.name!r} needs --data: a file, a folder or a hub data set{hint}")
    if task.most_renderings is not None and request.renderings > task.most_renderings:
        raise UserError(
            f"--permutations {request.renderings}, but examples of task {task.name!r} have {task.most_renderings} "
            "renderings"
        )
    try:
        examples = task.read(request)
    except UserError:
        raise  # some of them are of OSError too
    except OSError as error:
        where = without_secrets(str(error.filename or request.data or f"task {task.name}"))
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None
    if not examples:
        raise UserError(f"there are no examples in {without_secrets(request.data or task.name)}")
    if isinstance(task.scoring, Choice):
        without = next((example for example in examples if not example.options), None)
        if without is not None:
            raise UserError(f"example {without.id!r} of task {task.name!r} has no options, and Choice needs them")
    return examples


def _refusing_broken_examples(
    name: str, read: Callable[[DataRequest], list[Example]]
) -> Callable[[DataRequest], list[Example]]:
    """The examples of a user's task under the name that finds it, with a check of what its ``read`` returns."""

    def checked(request: DataRequest) -> list[Example]:
        where = f"task {name!r}: the examples"
        try:
            found: object = read(request)
        except (UserError, OSError):
            raise
        except Exception as error:  # the function is the user's own, and so is whatever it raises
            raise UserError(f"{where} cannot be read: {located(error)}") from None
        if not isinstance(found, list):
            raise UserError(f"{where} must be a list of Example, found {type(found).__name__}")
        for example in found:
            if not isinstance(example, Example):
                raise UserError(f"{where} must be a list of Example, found {example!r} in it")
        return [replace(example, task=name) for example in found]

    return checked

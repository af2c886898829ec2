"""The options of a task: of your own rows the columns, prompt and comparison; of arithmetic the kinds of problems.

A run keeps them in its settings, so that every later command reads the same examples, prompts and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option, option_name
from pipeline.tasks.arithmetic_kinds import DEFAULT_KINDS, FORMER_KINDS
from pipeline.tasks.matching import Match

#: The rule of a new run, and that of runs from before there was a choice.
DEFAULT_MATCH: Match = "normalized"
FORMER_MATCH: Match = "exact"
#: The beginning of the names of task options among a run's settings.
TASK_OPTION = "task_options."
#: The options of each task; other tasks have none.
OPTIONS_OF = {
    "jsonl": ("match", "chat", "system", "prompt_column", "answer_column"),
    "arithmetic": ("kinds",),
}
#: Those that a resumed run has as it had them, unless they are given.
_LEFT_OPEN = ("match", "kinds")


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of the tasks that have any; see ``OPTIONS_OF``.

    Raises:
        UserError: A word is not one of its choices, a column has no name, or there is a system turn without a chat.
    """

    match: Match | None = field(default=None, metadata=option(unset="normalized; as it was for a run that is resumed"))
    """Task jsonl: when the answer line, the first that is not empty, is right. exact: it equals the
    reference to the letter. normalized: it consists of the same words; case, spaces, final punctuation, marks around it
    and English articles make no difference. contains: the reference's words stand in it. number: its last number equals
    the reference's (42.0 is 42, and 1,000 is 1000). regex: the reference is a pattern for the whole line."""
    chat: bool = False
    """Task jsonl: put the prompt into the model's chat template, as the user's turn."""
    system: str | None = field(default=None, metadata=option(metavar="TEXT"))
    """Task jsonl, with --chat: the system's turn before it."""
    prompt_column: str = field(default="prompt", metadata=option(metavar="NAME"))
    """Task jsonl: column of the prompts."""
    answer_column: str = field(default="answer", metadata=option(metavar="NAME"))
    """Task jsonl: column of the reference answers: a text, or a list of accepted texts."""
    kinds: str | None = field(
        default=None,
        metadata=option(
            metavar="NAMES", unset=f"all but {', '.join(FORMER_KINDS)}; as it was for a run that is resumed"
        ),
    )
    """Task arithmetic: kinds of problems, with commas between them."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.system is not None and not self.chat:
            raise UserError("--system goes with --chat: without a chat template a prompt has no turns")
        if not self.prompt_column or not self.answer_column:
            raise UserError("--prompt-column and --answer-column need a name")

    def check_task(self, task: str) -> None:
        """Refuse options of another task.

        Raises:
            UserError: An option is set that the task does not have.
        """
        known = OPTIONS_OF.get(task, ())
        for one in fields(self):
            if one.name not in known and getattr(self, one.name) != one.default:
                [owner] = [other for other, names in OPTIONS_OF.items() if one.name in names]
                raise UserError(f"{option_name(one)} goes with --task {owner}, not {task!r}")

    def of_run(self, task: str, settings: Mapping[str, Any] | None) -> TaskOptions:
        """These options, with those that are left open as a run has them.

        Args:
            task: The task.
            settings: The settings of the run that is resumed; None for a new run.
        """
        is_of_task = settings is not None and settings.get("task") == task
        kept = TaskOptions.from_settings(settings) if settings is not None and is_of_task else _OF_NEW_RUNS
        left_open = [name for name in _LEFT_OPEN if name in OPTIONS_OF.get(task, ()) and getattr(self, name) is None]
        chosen = replace(self, **{name: getattr(kept, name) for name in left_open})
        if chosen.kinds is None:
            return chosen
        # The same kinds are the same setting, with spaces or without.
        return replace(chosen, kinds=",".join(name.strip() for name in chosen.kinds.split(",")))

    def to_settings(self) -> dict[str, Any]:
        """The options that differ from what every run had before there were options, as ``run.json`` holds them."""
        former = asdict(_OF_FORMER_RUNS)
        changed = {name: value for name, value in asdict(self).items() if value is not None and value != former[name]}
        return {f"{TASK_OPTION}{name}": value for name, value in changed.items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TaskOptions:
        """The options of a run with these settings.

        Raises:
            UserError: The settings hold an option that the task does not have, or a value of another type.
        """
        known = OPTIONS_OF.get(str(settings.get("task")), ())
        values = {name: value for name, value in asdict(_OF_FORMER_RUNS).items() if name in known}
        for key, value in settings.items():
            name = key.removeprefix(TASK_OPTION)
            if key.startswith(TASK_OPTION):
                kind = bool if name == "chat" else str
                if name not in values or not isinstance(value, kind):
                    raise UserError(f"the settings hold no valid {key}")
                values[name] = value
        return cls(**values)


#: The options of a new run, and those of a run from before there were any.
_OF_NEW_RUNS = TaskOptions(match=DEFAULT_MATCH, kinds=",".join(DEFAULT_KINDS))
_OF_FORMER_RUNS = TaskOptions(match=FORMER_MATCH, kinds=",".join(FORMER_KINDS))

"""The options of a task over your own rows (``jsonl``): its columns, its prompt, and when an answer is right.

A run keeps them in its settings, so that every later command reads the same examples, prompts and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.tasks.matching import Match

#: The rule of a new run, and that of runs from before there was a choice.
DEFAULT_MATCH: Match = "normalized"
FORMER_MATCH: Match = "exact"
#: The beginning of the names of task options among a run's settings.
TASK_OPTION = "task_options."


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of the task ``jsonl``; other tasks have none.

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

    def __post_init__(self) -> None:
        check_fields(self)
        if self.system is not None and not self.chat:
            raise UserError("--system goes with --chat: without a chat template a prompt has no turns")
        if not self.prompt_column or not self.answer_column:
            raise UserError("--prompt-column and --answer-column need a name")

    def to_settings(self) -> dict[str, Any]:
        """The options that differ from what every run had before there were options, as ``run.json`` holds them."""
        former = asdict(_FORMER)
        changed = {name: value for name, value in asdict(self).items() if value is not None and value != former[name]}
        return {f"{TASK_OPTION}{name}": value for name, value in changed.items()}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> TaskOptions:
        """The options of a run with these settings.

        Raises:
            UserError: The settings hold an unknown option, or a value of another type.
        """
        values = asdict(_FORMER)
        for key, value in settings.items():
            name = key.removeprefix(TASK_OPTION)
            if key.startswith(TASK_OPTION):
                kind = bool if name == "chat" else str
                if name not in values or not isinstance(value, kind):
                    raise UserError(f"run.json holds no valid {key}")
                values[name] = value
        return cls(**values)


#: The options of a run from before there were any.
_FORMER = TaskOptions(match=FORMER_MATCH)

"""Errors of Ray in words: their first cause, and what may help against it."""

from __future__ import annotations

import re

_MISSING_MODULE = re.compile(r"(?:ModuleNotFoundError|ImportError): (?P<what>[^\n]+)")
_OURS = re.compile(r"'(?:pipeline|router)\b")
#: Words of errors that memory is not the cause of.
_OTHER_CAUSES = ("Error: ", "node died", "node was drained", "preempted", "killed by `ray.kill`")
_MEMORY = re.compile(r"out of memory|OutOfMemory|MemoryError|memory pressure|OOM|not enough memory", re.IGNORECASE)
_MOST_CHARACTERS = 500


def one_line(error: BaseException) -> str:
    """An error's message on one line, cut where it is long; Ray's messages say the cause only after the first line."""
    return " ".join(str(error).split())[:_MOST_CHARACTERS] or type(error).__name__


def with_cure(what: str, error: BaseException) -> str:
    """A message that says what happened, why, and what may help.

    Args:
        what: What happened.
        error: The exception of an actor, or what ended the actor.
    """
    text = f"{type(error).__name__}: {error}"
    missing = _MISSING_MODULE.search(text)
    if missing is not None:
        package = "drllm-pipeline, in the version that runs here," if _OURS.search(missing["what"]) else "that package"
        cure = f"install {package} on every node, or give the job a runtime environment that has it"
        return f"{what}: {missing['what'].strip()}; {cure}"
    message = f"{what} ({one_line(error)})"
    if _MEMORY.search(text) or not any(words in str(error) for words in _OTHER_CAUSES):
        message += "; is there enough memory for one copy an actor? fewer --actors need less"
    return message

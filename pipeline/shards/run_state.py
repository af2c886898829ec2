"""How far a run has come, and how it goes on: from its manifest, its notes of failures and its ``run.json``."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipeline.shards.reader import read_json, read_manifest
from pipeline.storage import AnyPath, PathOrUrl, contents, entries, is_there, locate

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run.

    Attributes:
        complete: Whether every example is committed.
        done: Examples that are committed.
        num_examples: Examples of the run; None where ``run.json`` does not say.
        set_aside: Examples that were set aside, by the reason; errors that differ in their numbers alone count as one.
        given_up: Of those, examples of committed groups, which are not tried again.
        command: The words of the command that made the run; None where ``run.json`` does not say.
        folder: The working folder of that command; None where ``run.json`` does not say.
    """

    complete: bool
    done: int
    num_examples: int | None
    set_aside: dict[str, int]
    given_up: int
    command: tuple[str, ...] | None
    folder: str | None = None

    @classmethod
    def read(cls, run: PathOrUrl) -> RunState:
        """Read the state of a run.

        Raises:
            UserError: The folder is no run, or its manifest is damaged.
        """
        root = locate(run)
        notes, records = read_json(root / "run.json"), read_manifest(root)
        failed = [error for record in records.values() for error in record.failed.values()]
        errors = [*failed, *_noted_errors(root, {f"group-{group:06d}" for group in records})]
        first: dict[str, str] = {}
        kinds = Counter(first.setdefault(_NUMBER.sub("", error), error) for error in errors)
        number, words, folder = (notes.get(name) for name in ("examples", "command", "working_folder"))
        return cls(
            complete=is_there(root / "_SUCCESS"),
            done=sum(len(record.example_ids) for record in records.values()),
            num_examples=number if type(number) is int else None,
            set_aside=dict(kinds.most_common()),
            given_up=len(failed),
            command=tuple(words) if isinstance(words, list) and words and _are_texts(words) else None,
            folder=folder if isinstance(folder, str) else None,
        )

    def describe(self) -> str:
        """One line: what is done, what was set aside and why, and what to do."""
        total = "" if self.num_examples is None else f" of {self.num_examples}"
        parts = [f"{self.done}{total} examples"]
        if self.set_aside:
            reasons = ", ".join(f"{reason} ({number})" for reason, number in self.set_aside.items())
            parts.append(f"{sum(self.set_aside.values())} set aside: {' '.join(reasons.split())}")
        if self.num_examples is not None and self.done + self.given_up >= self.num_examples:
            parts.append("no other is left to search")
        elif self.command is None:
            parts.append("go on with the command that began the run")
        else:
            elsewhere = self.folder is not None and self.folder != str(Path.cwd())
            where = f", in {self.folder}," if elsewhere else ""
            parts.append(f"go on{where} with: {shlex.join(self.command)}")
        return "; ".join(parts)


def _noted_errors(root: AnyPath, committed: set[str]) -> list[str]:
    """The errors in ``failed/`` of groups that are not committed; a line that cannot be read is left out."""
    try:
        files = [file for file in entries(root / "failed", ".jsonl") if file.stem not in committed]
        texts = list(contents(files))
    except OSError:
        return []
    return [error for text in texts for line in text.splitlines() if (error := _error_of(line)) is not None]


def _error_of(line: bytes) -> str | None:
    try:
        error = json.loads(line)["error"]
        return error if isinstance(error, str) and error.encode() else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _are_texts(words: list[object]) -> bool:
    return all(isinstance(word, str) for word in words)

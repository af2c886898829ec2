"""Follows a section of docs/extending.md word for word: writes its files, runs its commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: A fenced block, and the file that the sentence above it names: "Write these rows to `claims.jsonl`:".
_BLOCK = re.compile(r"(?:`([^`\n]+)`:\n\n)?^( *)```(\w+)\n(.*?)^\2```", re.MULTILINE | re.DOTALL)
#: Tests save a tiny random model under this name, which loads and runs much faster than four layers of SmolLM2.
_MAKES_THE_MODEL = "drllm-pipeline export --model smollm2 --program 0-3 --out my-model"


def follow_recipe(heading: str, folder: Path) -> list[str]:
    """Write a recipe's files into a folder and run its commands there; returns what each command printed.

    One command is skipped: the one that makes ``my-model``, which the caller has put into the folder.
    """
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert f"{_MAKES_THE_MODEL}\n" in section
    printed = []
    for named_above, _, language, block in _BLOCK.findall(section):
        content = textwrap.dedent(block)
        if language == "sh":
            printed += [_run(line, folder) for line in content.splitlines() if line != _MAKES_THE_MODEL]
        elif language == "python":
            _write(folder / content.partition("\n")[0].removeprefix("# "), content)
        elif language != "text":  # what a command prints
            _write(folder / named_above, content)
    return printed


def _write(file: Path, content: str) -> None:
    assert file.suffix, f"no file is named for: {content}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def _run(line: str, folder: Path) -> str:
    """Run a command as from an installed script, whose path does not begin with the current folder."""
    program, *arguments = shlex.split(line)
    assert program == "drllm-pipeline"
    result = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout

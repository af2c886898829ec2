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
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def follow_recipe(heading: str, folder: Path) -> list[str]:
    """Write a recipe's files into a folder and run its commands there; returns what each command printed."""
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    printed = []
    for _, language, block in _BLOCK.findall(section):
        content = textwrap.dedent(block)
        if language == "sh":
            printed += [_run(line, folder) for line in content.splitlines()]
        else:
            name, _, content = content.partition("\n")
            file = folder / name.removeprefix("# ")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
    return printed


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

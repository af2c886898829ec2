"""The recipe for a new column in ``docs/extending.md``, followed word for word in a copy of the repository."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.smollm2]

REPOSITORY = Path(__file__).resolve().parents[2]


def blocks(heading: str) -> list[tuple[str, str]]:
    """The fenced blocks of a section, each with its language."""
    text = (REPOSITORY / "docs" / "extending.md").read_text()
    section = re.split(r"^## ", text.split(f"\n## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


def test_a_column_is_added_as_the_recipe_says(tmp_path):
    """Catches a recipe that lacks a step, and older runs that a new column makes unreadable or unresumable."""
    copy = tmp_path / "checkout"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy / name)
    said = []
    environment = {**os.environ, "PYTHONPATH": str(copy), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in blocks("A column"):
        if language == "diff":
            subprocess.run(["git", "apply", "-"], input=text, text=True, cwd=copy, check=True, timeout=60)
        elif language == "python":
            (copy / text.partition("\n")[0].removeprefix("# ")).write_text(text)
        else:
            for command in text.splitlines():
                words = shlex.split(command)
                process = subprocess.run(words, cwd=copy, env=environment, capture_output=True, text=True)
                assert process.returncode == 0, (command, process.stdout[-2000:], process.stderr[-2000:])
                said += process.stdout.splitlines()
    assert "runs/before has the column: False default: True" in said
    assert "runs/after has the column: True default: False" in said

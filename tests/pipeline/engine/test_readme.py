"""The engine's README: each name in it is a name in the code, and no file of the engine is left out."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import pipeline.engine

FOLDER = Path(pipeline.engine.__file__).parent
TEXT = (FOLDER / "README.md").read_text()
FILES = sorted(file.name for file in FOLDER.glob("*.py") if file.name != "__init__.py")
QUOTED = sorted(set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))))
#: What is quoted and is no name of the engine's own: an argument, a shape, an example.
OTHERS = {
    "materialize(model, program)",
    "tests/pipeline/engine/test_exactness.py",
    "max_batch_tokens",
    "attention_mask",
    "decode",
    "logits",
    "[T, D]",
    "[1, N, D]",
    "[B, D]",
}


def exists(name: str) -> bool:
    """Whether a dotted name is in a module of the engine."""
    first, *rest = name.split(".")
    for file in FILES:
        found = getattr(importlib.import_module(f"pipeline.engine.{Path(file).stem}"), first, None)
        for part in rest:
            members = {**getattr(found, "__annotations__", {}), **getattr(found, "__dict__", {})}
            found = members.get(part)
        if found is not None:
            return True
    return False


@pytest.mark.parametrize("name", [name for name in QUOTED if name not in OTHERS])
def test_each_name_is_in_the_code(name):
    """Catches a page that names a function or a file of yesterday."""
    assert (FOLDER / name).is_file() if name.endswith(".py") else exists(name)


def test_what_is_not_a_name_is_still_quoted():
    """Catches exceptions that outlive their text, under which a wrong name could hide."""
    assert set(QUOTED) >= OTHERS
    assert Path(__file__).with_name("test_exactness.py").is_file()


def test_no_file_is_left_out():
    """Catches a new file of the engine that the page does not place in a decode step."""
    assert [file for file in FILES if f"`{file}`" not in TEXT] == []


def test_the_page_stays_a_page():
    """Catches a walk that grows into a manual, and steps that lost their order."""
    assert len(TEXT.splitlines()) <= 90
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", TEXT, flags=re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))


def test_a_wrong_name_is_found():
    """Catches a check that finds every name."""
    assert exists("Prefill._plan") and exists("Decoded.gap")
    assert not exists("Prefill._plans") and not exists("Reader") and not exists("Text.wanted")

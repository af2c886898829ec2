"""The state of a run that has not ended, as `inspect` says it."""

from __future__ import annotations

import json
import shlex

import pytest
from shard_rows import CONFIG, opened, rows

from pipeline.shards.run_folder import RunFolder
from pipeline.shards.run_state import RunState

COMMAND = ["drllm-pipeline", "search", "--data", "my data.jsonl", "--out", "it's here"]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, provenance={"examples": 9, "command": COMMAND})
    return folder


def test_a_state_says_what_is_done_what_failed_and_what_to_type(run):
    """Catches examples that count twice, reasons that differ in a number alone, and words that the shell splits."""
    run.commit(0, [*rows("a"), *rows("b")], failed={"c": "ValueError: 600 tokens, the model reads 512"})
    run.set_aside(1, dict.fromkeys("def", "OSError: no") | {"g": "ValueError: 700 tokens, the model reads 512"})
    state = RunState.read(run.root)
    assert state.set_aside == {"OSError: no": 3, "ValueError: 600 tokens, the model reads 512": 2}
    said, command = state.describe().split("; go on with: ")
    assert said == "2 of 9 examples; 5 set aside: OSError: no (3), ValueError: 600 tokens, the model reads 512 (2)"
    assert shlex.split(command) == COMMAND and not state.complete


def test_a_run_that_has_nothing_left_to_search_says_so(run):
    """Catches the advice to run a command again that would search nothing."""
    names = "abcdefgh"
    run.commit(0, [row for name in names for row in rows(name)], failed={"i": "ValueError: too long"})
    assert RunState.read(run.root).describe() == (
        "8 of 9 examples; 1 set aside: ValueError: too long (1); no other is left to search"
    )


def test_a_reason_of_several_lines_is_told_on_one(run):
    """Catches a state that breaks the table it stands in."""
    run.set_aside(0, {"a": "RuntimeError: one\n  two"})
    assert "1 set aside: RuntimeError: one two (1); go on with" in RunState.read(run.root).describe()


def test_a_run_of_an_earlier_release_has_a_state(tmp_path):
    """Catches a key of run.json that old runs do not have, and notes or commands that are damaged."""
    folder = opened(tmp_path / "run")
    folder.commit(0, rows("a"))
    expected = "1 examples; go on with the command that began the run"
    assert RunState.read(folder.root).describe() == expected
    file = folder.root / "run.json"
    for command in ("search", [], ["search", 3], None):
        file.write_text(json.dumps({**json.loads(file.read_text()), "examples": "9", "command": command}))
        assert RunState.read(folder.root).describe() == expected
    (folder.root / "failed").mkdir()
    (folder.root / "failed" / "group-000003.jsonl").write_bytes(b'{"error": 3}\n[]\n\xff\n{"error": "\\ud800"}\n')
    assert RunState.read(folder.root).set_aside == {}
    folder.mark_complete()
    assert RunState.read(folder.root).complete

"""The commands of each page, run one after the other in a folder of its own, as a reader of the page would.

The README's quick start has a test of its own, ``test_documents.test_quick_start``.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from documents import EXTENDING, REPOSITORY, blocks, commands
from tiny import save_tiny_model, write_questions

from pipeline import tasks
from pipeline.cli import demo
from pipeline.cli.main import main

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]

PAGES = (
    "search.md",
    "own_data.md",
    "menus.md",
    "routers.md",
    "adapt.md",
    "data_set.md",
    "cluster.md",
    "probes.md",
    "results.md",
)
#: What the reader of a page has done before, by the pages that it leads from.
BEFORE = {
    "data_set.md": [
        "drllm-pipeline demo",
        "drllm-pipeline search --model smollm2 --task arc --data arc_easy.jsonl --out runs/arc",
    ]
}
#: A command that no machine without a hub can run, and the test that runs it on a task of its own.
NOT_RUN = {"lm-eval": "test_lm_eval.py"}
#: Models of the pages; the tiny model stands for each.
MODELS = ("smollm2", "meta-llama/Llama-3.2-3B-Instruct", "Qwen/Qwen3-8B")
#: Data of the pages; the tiny model's questions stand for each.
DATA = ("allenai/ai2_arc:ARC-Easy", "s3://bucket/arc.jsonl", "arc_easy.jsonl", "emotion.jsonl")
#: Smaller values, so that the commands end soon; None leaves an option out.
SMALLER = {
    "--limit": "12",
    "--size": "3",
    "--simulations": "6",
    "--program": "0-2,4-5",
    "--actors": None,
    "--device": None,
}
#: Options that make a command small, where the page leaves them at their defaults.
ADDED = {
    "search": "--simulations 6 --calibration 4",
    "train": "--epochs 1 --held-out 0.25",
    "evaluate": "--simulations 2",
    "probe train": "--epochs 1",
    "probe compare": "--epochs 1 --downcast 16",
    "demo": "--limit 24 --menu-limit 40 --evaluations 1500 --held-out 8",
}


@pytest.fixture(scope="module")
def reader(tmp_path_factory, local_actors) -> Iterator[Path]:
    """A reader's files: what the pages read, and a tiny model where they say SmolLM2."""
    folder = tmp_path_factory.mktemp("reader")
    model, questions = save_tiny_model(folder / "model"), write_questions(folder / "arc_easy.jsonl", 96)
    texts = [f'{{"text": "text {number} {"!?"[number % 2]}", "label": "{"ab"[number % 2]}"}}' for number in range(48)]
    for name in ("train", "validation", "test", "new"):
        (folder / f"{name}.jsonl").write_text("\n".join(texts) + "\n")
    [rows] = [block.text for block in blocks(REPOSITORY / "docs" / "own_data.md") if block.language == "json"]
    (folder / "facts.jsonl").write_text(rows)
    (folder / "outcomes.jsonl").write_text('{"prompt": "Which is it?", "program": "0-5", "right": true}\n')
    arc = tasks.TASKS["arc"]

    def read(request):
        wanted = slice(48, None) if request.split == "test" else slice(0, 48)
        return arc.read(replace(request, data=str(questions), limit=None))[wanted][: request.limit]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRLLM_CACHE", str(folder / "cache"))
        patch.setattr(demo, "MODEL", str(model))
        patch.setattr(demo, "MIN_BUDGET", 0.5)
        # The tiny model answers no sums.
        stand_in = replace(arc, name="arithmetic", read=read, needs_data=False)
        patch.setattr(tasks, "arithmetic_task", lambda options: stand_in)
        yield folder


def commands_of(page: str) -> list[list[str]]:
    """The words of a page's commands behind ``drllm-pipeline``; a submitted job is the command that it calls."""
    shown = [
        command
        for block in blocks(REPOSITORY / "docs" / page)
        if block.language == "console"
        for command in commands(block)
    ]
    found = []
    for command in [*BEFORE.get(page, []), *shown]:
        words = shlex.split(command, comments=True)
        if words[0] == "drllm-pipeline":
            found.append(words[1:])
        elif words[:3] == ["ray", "job", "submit"]:
            script, *arguments = words[words.index("python") + 1 :]
            found.append([Path(script).stem, *arguments])
    return found


def on_tiny(words: list[str], folder: Path) -> list[str]:
    """A command of a page, for the tiny model and small."""
    name = " ".join(words[:2]) if words[0] == "probe" else words[0]
    small = []
    position = 0
    while position < len(words):
        word = words[position]
        if word in SMALLER:
            # A selector is validated in folds, which need some examples.
            value = "40" if (name, word) == ("menu", "--limit") else SMALLER[word]
            small += [] if value is None else [word, value if words[position + 1] != "0" else "0"]
            position += 2
            continue
        small.append(str(folder / "model") if word in MODELS else "arc_easy.jsonl" if word in DATA else word)
        position += 1
    # What the pages write to a bucket or a shared file system goes into the reader's folder.
    small = [word.replace("s3://bucket", "bucket").replace("/shared/", "shared/") for word in small]
    added = [] if "--menu" in words and name == "train" else shlex.split(ADDED.get(name, ""))
    for option, value in zip(added[::2], added[1::2]):
        if option not in small:
            small += [option, value]
    return small


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs(reader, page, tmp_path, monkeypatch):
    """Catches a command that is refused, that fails, or that needs what no earlier command of the page made."""
    for file in reader.glob("*.jsonl"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = 0
    for words in commands_of(page):
        if words[0] in NOT_RUN:
            continue
        small = on_tiny(words, reader)
        result = CliRunner().invoke(main, small)
        assert result.exit_code == 0, (words, small, result.output[-1500:], result.exception)
        ran += 1
    assert ran


def test_every_page_that_shows_commands_is_run():
    """Catches a new page whose commands are only read."""
    shown = {path.name for path in (REPOSITORY / "docs").glob("*.md") if path != EXTENDING and commands_of(path.name)}
    assert shown == set(PAGES)

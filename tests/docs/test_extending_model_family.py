"""The recipe for a model family in docs/extending.md, followed word for word."""

from __future__ import annotations

import importlib.util
import inspect
import re
import runpy
import shlex
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from transformers import GraniteForCausalLM

from pipeline.engine import decoder_stack, layer_config, stock_check

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = (REPOSITORY / "docs" / "extending.md").read_text()
SECTION = re.search(r"^## A model family\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)[1]  # type: ignore[index]


def blocks(language: str) -> list[str]:
    """The section's fenced blocks of a language, without their indentation."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", SECTION, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script of step 1, under the name in its first line."""
    [text] = [block for block in blocks("python") if block.startswith("# try_family.py\n")]
    file = tmp_path / "try_family.py"
    file.write_text(text)
    return file


def run(command: str, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``python …`` line of the section, in this process."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("python", script.name)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with torch.random.fork_rng():
        runpy.run_path(str(script), run_name="__main__")


def test_a_family_is_tried(script, monkeypatch, capsys):
    """Catches a script that does not run, and a printed result that is not its own."""
    run(blocks("bash")[0], script, monkeypatch)
    assert capsys.readouterr().out == blocks("text")[0]


def test_the_line_makes_a_tested_architecture(tmp_path):
    """Catches a line that does not fit into the table, or that builds another family."""
    [line] = [block for block in blocks("python") if block.startswith("# tests/helpers/architectures.py\n")]
    file = REPOSITORY / "tests" / "helpers" / "architectures.py"
    table = "ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {\n"
    assert table in file.read_text()
    copy = tmp_path / "extended_architectures.py"
    copy.write_text(file.read_text().replace(table, table + line.split("\n", 1)[1]))
    spec = importlib.util.spec_from_file_location(copy.stem, copy)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build("granite")
    assert isinstance(model, GraniteForCausalLM) and model.config.residual_multiplier == 0.5


def test_a_refusal_says_what_the_page_says(script, monkeypatch):
    """Catches a family that is refused in other words than those that a reader looks up."""
    with pytest.raises(SystemExit) as refused:
        run(blocks("bash")[2], script, monkeypatch)
    # How far the logits are off may differ in its digits elsewhere.
    shown, printed = (re.sub(r"off by \S+ of", "off by … of", text) for text in (blocks("text")[1], str(refused.value)))
    assert printed == shown.strip()


def test_the_table_names_what_is_there():
    """Catches a place to change that has moved, and a refusal whose words have changed."""
    sources = "".join(map(inspect.getsource, (decoder_stack, stock_check, layer_config)))
    rows = [row.split("|") for row in re.findall(r"^\| `.*$", SECTION, re.MULTILINE)]
    assert len(rows) == 8
    for row in rows:
        [said] = re.findall("`(.*)`", row[1])
        start = said.split("model.")[0].removesuffix("…").strip()
        assert start in sources, said
    for name in ("_BODY_PARTS", "_LAYER_ARGUMENTS", "_CACHE_ARGUMENTS", "_layer_types", "refusal", "with_layers"):
        assert f"`{name}`" in SECTION and name in sources
    for name in ("run_layer", "attention_mask", "embed", "head"):
        assert f"`DecoderStack.{name}`" in SECTION and hasattr(decoder_stack.DecoderStack, name)

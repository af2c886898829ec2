"""The command line: a wrong call ends in one line and exit code 2, before anything is loaded or started."""

from __future__ import annotations

import io
import json
import signal
from dataclasses import replace

import click
import datasets
import huggingface_hub
import pytest
import ray
from click.testing import CliRunner
from option_table import every_command
from shard_rows import CONFIG, rows
from tiny import save_tiny_model

from pipeline.cli.console import Console
from pipeline.cli.main import COMMANDS, main
from pipeline.cli.progress_bar import StepReporter
from pipeline.engine import FrozenModel
from pipeline.shards.run_folder import RunFolder
from pipeline.tasks import TASKS

GOOD_ROW = json.dumps({"prompt": "1 + 1 =", "answer": "2"})


class StartedError(Exception):
    """Ray was started, or a model loaded."""


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch, tmp_path):
    """Make every start an error, and work in an empty folder."""

    def start(*args, **kwargs):
        raise StartedError

    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(FrozenModel, "load", start)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


def call(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line with which a call is refused."""
    result = call(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.output
    return result.stderr


def test_a_right_call_would_start(tmp_path):
    """Catches tests below that pass because no call gets as far as starting anything."""
    model = save_tiny_model(tmp_path / "tiny")
    result = call("search", "--model", model, "--task", "arithmetic", "--out", "run", "--limit", 2)
    assert isinstance(result.exception, StartedError)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--task", "mmlu"], "unknown task 'mmlu'; choose one of: arithmetic, arc"),
        (["--budget", 0], "--budget must be above 0 (1.0 allows the model's own depth), got 0\n"),
        (["--budget", -0.5], "got -0.5"),
        (["--budget", "nan"], "got nan"),
        (["--budget", "inf"], "got inf"),
        (["--budget", 3], "--budget must be at most 2.0 (the longest program tried)"),
        (["--max-length", 0.5], "--max-length must be at least 1, got 0.5"),
        (["--simulations", 0], "--simulations must be at least 1, got 0"),
        (["--limit", 0], "--limit must be at least 1, got 0"),
        (["--actors", 0], "--actors must be at least 1, got 0"),
        (["--keep", 0], "--keep must be at least 1, or one of pareto, all; got 0"),
        (["--keep", "some"], "--keep must be at least 1, or one of pareto, all; got some"),
        (["--group-size", 0], "--group-size must be at least 1, got 0"),
        (["--cpus-per-actor", 0], "--cpus-per-actor must be at least 1, got 0"),
        (["--leaves", 0], "--leaves must be at least 1, got 0"),
        (["--cache-gib", -1], "--cache-gib must not be below 0 (0 shares nothing), got -1"),
        (["--calibration", -1], "--calibration must not be below 0 (0 learns nothing), got -1"),
        (["--prior", "nowhere"], "there is no prior nowhere"),
        (["--prior", "."], "holds no prior.safetensors"),
        (["--prior", "model/config.json"], "model/config.json holds no prior"),
        (["--prior", "nowhere", "--calibration", 8], "--prior replaces the prior that --calibration would fit"),
        (["--num-gpus", 0], "--num-gpus must be above 0, got 0\n"),
        (["--num-gpus", "nan"], "--num-gpus must be above 0, got nan"),
        (["--cache-gib", "nan"], "--cache-gib must not be below 0 (0 shares nothing), got nan"),
        (["--max-new-tokens", 0], "--max-new-tokens must be at least 1, got 0"),
        (["--device", "tpu"], "unknown device 'tpu'; choose one of: auto, cpu, cuda"),
        (["--dtype", "int3"], "unknown dtype 'int3'; choose one of: auto, float32"),
        (["--split", "dev"], "no split 'dev'; choose one of: train, test"),
        (["--data", "rows.jsonl"], "leave --data out"),
        (["--task", "arc"], "task 'arc' needs --data: a file, a folder or a hub data set"),
        (["--task", "arc", "--data", "x.jsonl", "--max-new-tokens", 3], "leave --max-new-tokens out"),
    ],
)
def test_a_wrong_option_is_named(model, arguments, named):
    """Catches a value out of its range that surfaces as a traceback, or only once a cluster is up."""
    assert named in refused("search", "--model", model, "--task", "arithmetic", "--out", "run", *arguments)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "data 'rows.jsonl' does not exist"),
        ("", "rows.jsonl: there are no rows in it"),
        (f"{GOOD_ROW}\n{GOOD_ROW}\n{{oops\n", "rows.jsonl, line 3: this is not JSON"),
        (f"{GOOD_ROW}\n[1]\n", "rows.jsonl, line 2: expected an object"),
        ('{"query": "1 + 1 =", "answer": "2"}\n', "line 1: there is no column 'prompt'; it has: query, answer"),
        ('{"prompt": "1 + 1 =", "answer": ""}\n', "line 1: column 'answer' is empty"),
    ],
)
def test_wrong_data_is_named(model, tmp_path, content, named):
    """Catches bad data that is found only after a model is loaded, or without its place."""
    if content is not None:
        (tmp_path / "rows.jsonl").write_text(content)
    assert named in refused("search", "--model", model, "--task", "jsonl", "--data", "rows.jsonl", "--out", "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("./none", "model './none' cannot be found"),
        ("none", "a hub id has the form owner/name"),
        ("some/none.gguf", "model 'some/none.gguf' cannot be found"),
        ("notes.txt", "is a file but not a .gguf"),
        ("broken.gguf", "model 'broken.gguf' is not a GGUF file"),
        ("empty", "has no config.json"),
        ("pickled", "has no .safetensors weights"),
    ],
)
def test_a_model_that_is_not_there_is_named(tmp_path, name, named):
    """Catches a wrong model that each actor of a cluster finds out for itself."""
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "broken.gguf").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    assert named in refused("search", "--model", name, "--task", "arithmetic", "--out", "run", "--limit", 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "nobody/nothing", "--task", "arithmetic"], "model 'nobody/nothing' cannot be found"),
        (["--model", "x/y", "--task", "arc", "--data", "nobody/no-data"], "data 'nobody/no-data' (split 'train')"),
    ],
)
def test_the_hub_cannot_be_asked(monkeypatch, arguments, named):
    """Catches a traceback of the hub's client, or a wait, where a mistyped name meets no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert named in refused("search", *arguments, "--out", "run")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--action-space", "swap"], "--action-space 'swap' is unknown; choose one of: cola, drllm"),
        (["--limit", "many"], "'--limit': 'many' is not a valid integer"),
        (["--bugdet", "1"], "No such option"),
    ],
)
def test_what_click_refuses(model, arguments, named):
    """Catches an unknown option or value that is ignored."""
    result = call("search", "--model", model, "--task", "arithmetic", "--out", "run", *arguments)
    assert result.exit_code == 2 and named in result.stderr.splitlines()[-1]


def test_inspect_needs_a_run(tmp_path):
    """Catches a traceback, or an empty summary, for a folder that is none of ours."""
    assert "no-run is no run folder: it has no run.json" in refused("inspect", "no-run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{oops")
    assert "run.json cannot be read" in refused("inspect", "run")
    (tmp_path / "run" / "run.json").write_text('{"settings": {"task": "\\ud800"}}')
    assert "run.json cannot be read" in refused("inspect", "run")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_step_is_called_as_it_is(terminal):
    """Catches a router's folder whose name is taken for markup where its progress is shown."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with StepReporter(console) as steps:
        steps("asking [/b]", 1, 1)
    assert "asking [/b]" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ["[/b]", "[red]", "[link=x]\\"])
def test_inspect_shows_names_as_they_are(tmp_path, task):
    """Catches a task or a model whose name is taken for markup: it vanishes, or ends in a traceback."""
    folder = RunFolder(tmp_path / "run")
    folder.open(replace(CONFIG, task=task, model=replace(CONFIG.model, name=f"a {task}")), provenance={})
    folder.commit(0, [{**row, "task": task} for row in rows("q")])
    folder.close()
    result = call("inspect", folder.root)
    assert result.exit_code == 0, result.exception
    assert f"{task} with a {task}" in result.output and result.output.count(task) == 3


@pytest.mark.parametrize(("keep", "said"), [(4, False), ("all", True), ("pareto", True)])
def test_inspect_compares_verdicts_where_both_are_kept(tmp_path, keep, said):
    """Catches two equal numbers that seem to say that no guess was lucky, where only what is no guess was kept."""
    folder = RunFolder(tmp_path / "run")
    folder.open(replace(CONFIG, permutations=4, keep=keep), provenance={})
    kept = [{**row, "correct_as_asked": True} for row in rows("q")]
    for question, stands in (("lucky", False), ("found", True)):
        shorter, identity = rows(question)
        kept.append({**shorter, "correct_as_asked": True, "correct": stands})
        kept.append({**identity, "correct_as_asked": False, "correct": False})
    folder.commit(0, kept)
    folder.close()
    output = call("inspect", folder.root).output
    assert "has 4 renderings" in output and "on 1 in the first rendering and on 1 in all of them" in output
    compared = "Of 2 that it gets wrong in the first rendering, a program corrects 2 there, and 1 in all renderings."
    assert (compared in output) == said


def test_a_task_names_no_data_that_it_cannot_read(model):
    """Catches a suggested data set without the reference answers that the task needs."""
    said = refused("search", "--model", model, "--task", "dart-math", "--out", "run")
    assert "task 'dart-math' needs --data" in said and "for example" not in said


def test_demo_checks_its_limit_first():
    """Catches a demo that loads a model in order to do nothing."""
    assert "--limit must be at least 1, got 0" in refused("demo", "--limit", 0)


@pytest.mark.parametrize(("name", "command"), list(every_command()))
def test_help_tells_every_option(name, command):
    """Catches an option that the help leaves out, or without a word of help."""
    result = call(*name.split(), "--help")
    assert result.exit_code == 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in result.output and parameter.help
        else:
            assert parameter.make_metavar(click.Context(command)) in result.output


def test_help_tells_every_command_and_task():
    """Catches a command or a task that the help does not name."""
    overview = call("--help").output
    for name, command in every_command():
        if name in COMMANDS:
            assert name in overview and command.short_help and COMMANDS[name].short_help in " ".join(overview.split())
    told = call("search", "--help").output
    assert all(name in told and task.summary in told for name, task in TASKS.items())

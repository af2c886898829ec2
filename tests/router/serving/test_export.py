"""Exported programs need none of our code."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, PROGRAMS, build, build_family, rearranged
from click.testing import CliRunner
from shard_rows import CONFIG, planted_row
from tiny import NUM_LAYERS as TINY_LAYERS
from tiny import save_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.cli.main import main
from pipeline.engine import FrozenModel
from pipeline.engine.layer_config import with_layers
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from pipeline.search.config import SearchConfig
from pipeline.shards.run_folder import RunFolder
from router.artifact.folder import WEIGHTS_FILE, weights_sha256
from router.evaluation.evaluation_results import SINGLE
from router.serving import export as exporting
from router.serving.export import best_of_runs, best_single, export


class NoTokenizer:
    """Stands in where a test has token ids."""

    def save_pretrained(self, folder):
        return ()


@pytest.mark.parametrize("architecture", ARCHITECTURE_PARAMETERS)
@pytest.mark.parametrize("kind", ["skips", "block-repeat"])
@torch.inference_mode()
def test_a_stock_model_reads_it_and_says_the_same(architecture, kind, tmp_path):
    """Catches layers written in another order or once too few, and settings by layer that stay behind."""
    program = LayerProgram(PROGRAMS[kind], NUM_LAYERS)
    model = FrozenModel(build(architecture), NoTokenizer())
    export(model, program, tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert stock.config.num_hidden_layers == len(program)
    ids = [5, 9, 7, 30, 11, 12, 13, 14]
    torch.testing.assert_close(
        stock(torch.tensor([ids])).logits[0], model.logits([ids], [program])[0], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("layers", [(0, 2, 3), (0, 1, 1, 2, 3), (3, 0, 2, 1, 2)])
@torch.inference_mode()
def test_what_goes_by_layer_is_written_in_the_programs_order(layers, tmp_path):
    """Catches SmolLM3's layers without position embeddings, which a list names, in the wrong place."""
    hf_model = build_family("smollm3")
    assert hf_model.config.no_rope_layers == [1, 1, 1, 0]
    export(FrozenModel(hf_model, NoTokenizer()), LayerProgram(layers, NUM_LAYERS), tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.tensor([[5, 9, 7, 30, 11, 12, 13, 14]])
    expected = rearranged(hf_model, layers)(ids, use_cache=False).logits
    torch.testing.assert_close(stock(ids).logits, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_experts_behind_dense_layers_are_written_or_refused(tmp_path):
    """Catches random weights in place of experts, where one number says from which layer on there are any."""
    hf_model = build_family("glm4_moe")
    assert hf_model.config.first_k_dense_replace == 1
    model = FrozenModel(hf_model, NoTokenizer())
    export(model, LayerProgram((0, 0, 2, 3), NUM_LAYERS), tmp_path / "in-order")
    with pytest.raises(UserError, match=r"program 1-3,0 cannot be exported: .*Glm4MoeForCausalLM .*lack \d+ weights"):
        export(model, LayerProgram((1, 2, 3, 0), NUM_LAYERS), tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in-order"]


@torch.inference_mode()
def test_windows_are_compared_where_no_text_is_long_enough(tmp_path, monkeypatch):
    """Catches layers with a window in the place of those without: on a short text their logits are the same."""
    model = FrozenModel(build("gemma3", sliding_window=4096), NoTokenizer())

    def forgets(config, layers):
        config = with_layers(config, layers)
        config.layer_types = ["sliding_attention"] * len(layers)
        return config

    monkeypatch.setattr(sys.modules["pipeline.engine.materialize"], "with_layers", forgets)
    monkeypatch.setattr("router.serving.export.difference", lambda *_: 0.0)
    with pytest.raises(UserError, match="layer 0 has other settings"):
        export(model, LayerProgram((1, 2, 3), NUM_LAYERS), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cause", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), None])
def test_too_little_memory_to_compare_is_told_as_that(cause, tmp_path, monkeypatch):
    """Catches a program of which it is said that no checkpoint can be of it, because memory ran out."""

    def fails(*_, device, **__):
        assert device.type == "cpu"
        raise UserError("model cannot be loaded") from cause

    monkeypatch.setattr("router.serving.export.load_weights", fails)
    with pytest.raises(UserError) as raised:
        export(FrozenModel(build("llama"), NoTokenizer()), LayerProgram((0, 1), NUM_LAYERS), tmp_path / "out")
    assert ("is not enough memory to load the written checkpoint" in str(raised.value)) == (cause is not None)
    assert ("is another model" in str(raised.value)) == (cause is None)
    assert not list(tmp_path.iterdir())


def test_the_current_folder_can_be_written(tmp_path, monkeypatch):
    """Catches a folder beside the given one: it has no name for '.', and none can be made beside a mount point."""
    monkeypatch.chdir(tmp_path)
    export(FrozenModel(build("llama"), NoTokenizer()), LayerProgram((0, 1), NUM_LAYERS), Path())
    assert {"config.json", "model.safetensors", "layer_program.json"} <= {file.name for file in tmp_path.iterdir()}
    assert not list(tmp_path.glob(".*"))


def test_the_command_writes_one_program(tmp_path):
    """Catches a checkpoint without its tokenizer, or of another program than was asked for."""
    base = save_tiny_model(tmp_path / "base")
    arguments = ["export", "--model", str(base), "--program", "0,2-5,5", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert f"6 of {TINY_LAYERS} layers" in result.output
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ids = tokenizer("Hello there").input_ids
    ours = FrozenModel.load(str(base), device="cpu")
    with torch.inference_mode():
        expected = ours.logits([ids], [LayerProgram((0, 2, 3, 4, 5, 5), TINY_LAYERS)])[0]
        torch.testing.assert_close(stock(torch.tensor([ids])).logits[0], expected, atol=1e-4, rtol=1e-4)
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "has something in it" in again.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "{base}"], "name the program by one of"),
        (["--model", "{base}", "--program", "0-9"], "no range of layers"),
        (["--model", "{base}", "--program", "zero"], "cannot read 'zero'"),
        (["--program", "0-3"], "--model is needed"),
        (["--model", "{base}", "--prompt", "x"], "need --router"),
        (["--model", "{base}", "--best"], "need --router"),
        (["--model", "{base}", "--best", "--program", "0"], "name the program by one of"),
        (["--model", "{base}", "--program", "0", "--runs", "{base}"], "--runs goes with --best"),
        (["--router", "{base}", "--best", "--runs", "{base}"], "--runs goes with --best"),
        (["--best", "--runs", "{base}/none"], "no run folder"),
        (["--router", "{base}/none", "--prompt", "x"], "cannot be found"),
    ],
)
def test_a_wrong_call_gets_its_message(arguments, message, tmp_path):
    """Catches a traceback where a word is missing."""
    base = save_tiny_model(tmp_path / "base")
    filled = [argument.format(base=base) for argument in arguments]
    result = CliRunner().invoke(main, ["export", *filled, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert message in result.output


# -- the best program of runs and of evaluations --------------------------------------------

IDENTITY, SHORT, SHORTER = (LayerProgram(layers, TINY_LAYERS) for layers in (range(6), (0, 1, 3, 4, 5), (0, 1, 2, 3)))


def planted_run(folder, right, *, revision="sha256:0", name="stub", model_path=None, **settings):
    """A run folder: by example, the programs that are right on it; the identity program has its row in any case."""
    run = RunFolder(folder)
    source = replace(CONFIG.model, name=name, revision=revision)
    run.open(replace(CONFIG, model=source, search=SearchConfig(**settings)), provenance={"model_path": model_path})
    run.commit(
        0,
        [
            planted_row(example, program, correct=program in programs, rank=0)
            for example, programs in right.items()
            for program in dict.fromkeys([IDENTITY, *programs])
        ],
    )
    run.close()
    return folder


#: Right on: the identity program three, both others two.
FOUND = {"a": [IDENTITY, SHORT], "b": [IDENTITY, SHORT, SHORTER], "c": [IDENTITY], "d": [SHORTER]}


def test_the_best_program_of_a_run_is_right_on_most_examples(tmp_path):
    """Catches a program beyond the budget, wrong rows that count as right, and a tie that the longer one wins."""
    run, frugal = planted_run(tmp_path / "run", FOUND), planted_run(tmp_path / "frugal", FOUND, budget=0.9)
    for runs, budget, expected, said in (
        ([run], 0.9, SHORTER, f"{SHORTER} is right on 2 of 4 examples, by the rows that are kept; the base model on 3"),
        ([frugal], None, SHORTER, "2 of 4 examples"),
    ):
        lines: list[str] = []
        assert best_of_runs(runs, budget, lines.append) == expected
        assert said in lines[0]
        assert lines[1].startswith("Warning: it is right on fewer examples than the base model")
    for runs, budget in (([run], None), ([frugal], 1.0)):
        with pytest.raises(UserError, match=rf"3 of 4 examples; a copy of it is no use. Of other .*, {SHORTER} is"):
            best_of_runs(runs, budget, print)
    with pytest.raises(UserError, match=r"has a right program within the budget of 0\.5"):
        best_of_runs([run], 0.5, print)


def test_an_example_that_two_runs_have_counts_once(tmp_path):
    """Catches a program that wins because its examples were searched twice."""
    first = planted_run(tmp_path / "first", {"a": [SHORT], "b": [SHORTER], "c": [SHORTER]})
    second = planted_run(tmp_path / "second", {"a": [SHORT], "f": []})
    lines: list[str] = []
    assert best_of_runs([first, second], None, lines.append) == SHORTER
    assert f"{SHORTER} is right on 2 of 4 examples" in lines[0]


def test_the_best_program_of_a_run_is_written(tmp_path, monkeypatch):
    """Catches a checkpoint of another model than the one that was searched, and one that is sought from here alone."""
    base = save_tiny_model(tmp_path / "base")
    source = resolve_model(str(base))
    run = planted_run(tmp_path / "run", FOUND, name=source.name, revision=source.revision)
    arguments = ["export", "--runs", str(run), "--best", "--budget", "0.9", "--out"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == len(SHORTER)
    monkeypatch.chdir(tmp_path / "out")
    moved = planted_run(tmp_path / "moved", FOUND, name="base", revision=source.revision, model_path=str(base))
    result = CliRunner().invoke(
        main, ["export", "--runs", str(moved), "--best", "--budget", "0.9", "--out", str(tmp_path / "again")]
    )
    assert result.exit_code == 0, result.output
    other = planted_run(tmp_path / "other", FOUND, name=source.name, revision="sha256:1")
    for runs, said in (([other], "is not the model that was searched"), ([run, other], "are of different models")):
        words = ["export", *(word for one in runs for word in ("--runs", str(one))), "--best", "--out"]
        refused = CliRunner().invoke(main, [*words, str(tmp_path / "refused")])
        assert refused.exit_code == 2 and said in refused.output, refused.output


def test_a_run_of_the_hub_pins_its_revision(tmp_path, monkeypatch):
    """Catches a refusal of a model that has moved on at the hub, which keeps its older revisions."""
    run = planted_run(tmp_path / "run", FOUND, name="them/theirs", revision="older")
    newest = replace(CONFIG.model, name="them/theirs", location="them/theirs", revision="newest")
    monkeypatch.setattr(exporting, "resolve_model", lambda name: newest)
    assert exporting._source(None, None, [run]) == replace(newest, revision="older")


def test_an_evaluation_of_other_weights_names_no_program(tmp_path):
    """Catches the program of an earlier training's evaluation, and an evaluation of an earlier release that is lost."""
    (tmp_path / WEIGHTS_FILE).write_bytes(b"weights")
    file = tmp_path / "evaluation.json"
    results = [{"contender": SINGLE, "answers": {"a": [str(SHORT), True]}}]

    def judged(**fields):
        lines: list[str] = []
        file.write_text(json.dumps({"num_layers": TINY_LAYERS, "results": results, **fields}))
        return best_single(tmp_path, lines.append), lines

    assert judged(weights_sha256=weights_sha256(tmp_path, "router")) == (SHORT, [])
    program, [line] = judged()
    assert program == SHORT and "does not say which weights it judged" in line
    (tmp_path / WEIGHTS_FILE).write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"judged other weights than .*run `drllm-pipeline evaluate` again"):
        judged(weights_sha256="0" * 64)

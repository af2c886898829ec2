"""From a model's name to an engine: what loads, what is refused, what pins the weights; and the real SmolLM2."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.loading import (
    _conversion_folder,
    check_before_loading,
    check_description,
    load_description,
    load_transformers,
)
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram


@pytest.fixture(scope="session")
def saved(build_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and its tokenizer; copy it before changing it."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    model = build_model("llama")
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{token}": token for token in range(model.config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def pickle_weights(folder: Path) -> None:
    """Replace the weights by pickled ones."""
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


# -- folders -------------------------------------------------------------------------------


def test_a_saved_folder_loads(saved, llama, programs):
    """Would catch a folder that loads with other weights, another precision, trainable, or without its tokenizer."""
    loaded = FrozenModel.load(str(saved), device="cpu", dtype="float32")
    ids = loaded.tokenizer.encode("w5 w17 w99")
    assert ids == [5, 17, 99]
    [logits], [expected] = (engine.logits([ids], [programs["repeat"]]) for engine in (loaded, llama))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert not any(parameter.requires_grad for parameter in loaded.hf_model.parameters())
    assert not loaded.hf_model.training


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("auto", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_the_precision_is_the_one_asked_for(saved, programs, dtype, expected):
    """Would catch a dtype that is ignored, or a self-check that is too strict for half precision."""
    loaded = FrozenModel.load(str(saved), device="cpu", dtype=dtype)
    assert loaded.hf_model.dtype == expected
    [logits] = loaded.logits([[5, 17, 99]], [programs["repeat"]])
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; choose one of: auto, cpu, cuda"),
        ({"device": ""}, "unknown device ''"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; choose one of: auto, float32"),
        ({"device": "cuda"}, "torch finds no GPU here; use --device cpu"),
        ({"device": "cuda:1"}, "torch finds no GPU here; use --device cpu"),
    ],
)
def test_unknown_devices_and_dtypes_are_named(saved, monkeypatch, arguments, message):
    """Would catch a traceback from torch where a word on the command line was wrong."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        FrozenModel.load(str(saved), **arguments)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (pickle_weights, "cannot be loaded: .*safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded: .*valid JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "nonesuch"}'), "cannot be loaded: .*none"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "t5"}'), "no causal language model"),
        (lambda folder: [file.unlink() for file in folder.glob("tokenizer*")], "cannot be loaded: .*tokenizer"),
    ],
    ids=["pickled", "broken-config", "unknown-type", "encoder-decoder", "no-tokenizer"],
)
def test_folders_that_cannot_be_used_are_refused(folder, spoil, message):
    """Would catch pickled code that is run, and a traceback from inside transformers."""
    spoil(folder)
    with pytest.raises(UserError, match=f"(?s){message}"):
        FrozenModel.load(str(folder), device="cpu")


def truncate(folder: Path) -> None:
    """Leave half of the weights' file, as an interrupted copy does."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def lose_a_tensor(folder: Path) -> None:
    """Leave one tensor out of the weights' file."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("spoil", [truncate, lose_a_tensor])
def test_incomplete_weights_are_refused(folder, spoil):
    """Would catch a search on layers that transformers filled with random numbers, and a traceback for half a file."""
    spoil(folder)
    with pytest.raises(UserError, match="cannot be loaded"):
        FrozenModel.load(str(folder), device="cpu")


def test_penalties_of_the_checkpoint_are_no_part_of_greedy_decoding(folder):
    """Would catch labels that a repetition penalty decided: stock generate on the frozen model applies it."""
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.5, "do_sample": True}))
    loaded = FrozenModel.load(str(folder), device="cpu").hf_model.generation_config
    assert loaded.repetition_penalty in (None, 1.0) and not loaded.do_sample
    assert loaded.eos_token_id == config["eos_token_id"]


def test_a_missing_gguf_file_is_named():
    """Would catch a traceback, or a question to the hub, for a file name with a slip of the pen."""
    with pytest.raises(UserError, match=r"nowhere\.gguf' does not exist"):
        FrozenModel.load("nowhere.gguf", device="cpu")


def test_a_broken_gguf_file_is_refused(tmp_path, monkeypatch):
    """Would catch a traceback from the reader of GGUF for half a download, or a cache entry that is left of it."""
    monkeypatch.setenv("DRLLM_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "half.gguf"
    file.write_bytes(b"GGUF" + b"\x03\0\0\0" + b"\0" * 64)
    with pytest.raises(UserError, match="cannot be loaded"):
        FrozenModel.load(str(file), device="cpu")


def test_a_gguf_file_is_hashed_once(tmp_path, monkeypatch):
    """Would catch minutes of reading a large file again and again, and a conversion of what the file held before."""
    file, reads = tmp_path / "one.gguf", []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *said: (reads.append(said), digest(*said))[1])
    file.write_bytes(b"GGUF one")
    first = _conversion_folder(file)
    assert _conversion_folder(file) == first and len(reads) == 1
    file.write_bytes(b"GGUF another")
    assert _conversion_folder(file) != first and len(reads) == 2


def test_the_check_before_loading_is_silent_and_leaves_the_settings(saved, monkeypatch):
    """Would catch warnings about a small random model on the terminal, and a user's own settings that are lost."""
    source, seen = resolve_model(str(saved)), []
    monkeypatch.setattr(
        "pipeline.engine.loading.check_description",
        lambda *_: seen.append((logging.get_verbosity(), logging.is_progress_bar_enabled())),
    )
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    try:
        check_before_loading(source)
        assert seen == [(logging.ERROR, False)]
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, before[1])
    finally:
        logging.set_verbosity(before[0])


def test_a_tokenizer_that_fails_is_named(saved, monkeypatch):
    """Would catch a traceback from a tokenizer's files that load, and do not work."""

    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("merges\nand more")

    config, tokenizer = load_description(resolve_model(str(saved)))
    monkeypatch.setattr(type(tokenizer), "__call__", fails)
    with pytest.raises(UserError, match=r"model 'm' cannot be loaded: KeyError: .*merges"):
        check_description("m", config, tokenizer)


# -- finding a model before loading it -----------------------------------------------------


@pytest.mark.parametrize("source", ["nowhere.gguf", "./nowhere", "~/nowhere/at/all", "nowhere", "one/two/three"])
def test_what_is_not_there_cannot_be_resolved(source, monkeypatch):
    """Would catch a path with a slip of the pen that is asked for on a hub."""
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    with pytest.raises(UserError, match=r"cannot be found: there is no such file or folder.*'smollm2'"):
        resolve_model(source)


def test_an_unreachable_hub_is_named(monkeypatch):
    """Would catch a traceback of the network's where there is none."""

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(UserError, match=r"the hub cannot be reached \(OSError\).*'smollm2' needs no hub"):
        resolve_model("nobody-we-know/no-model-we-know")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("weights.bin", b"GGUF", "is a file but not a .gguf"), ("weights.gguf", b"<html>", "is not a GGUF file")],
)
def test_files_that_are_no_model_cannot_be_resolved(tmp_path, name, content, message):
    """Would catch an error page that was saved under a model's name, found only after Ray is up."""
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        resolve_model(str(file))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (pickle_weights, r"has no .safetensors weights \(pickled weights are not read\)"),
    ],
    ids=["no-config", "pickled"],
)
def test_folders_that_are_no_model_cannot_be_resolved(folder, spoil, message):
    """Would catch a folder that is refused only by the actors, one after another."""
    spoil(folder)
    with pytest.raises(UserError, match=message):
        resolve_model(str(folder))


@pytest.mark.parametrize("load", [load_transformers, load_description])
@pytest.mark.parametrize("auto_class", ["AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"])
def test_code_of_a_folder_is_not_run(folder, monkeypatch, load, auto_class):
    """Would catch Python files of a checkpoint that run, if need be after a question that a terminal answers yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    (folder / "theirs.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((folder / name).read_text())
        reference = [None, "theirs.Theirs"] if auto_class == "AutoTokenizer" else "theirs.Theirs"
        (folder / name).write_text(json.dumps({**said, "auto_map": {auto_class: reference}, "model_type": "theirs"}))
    with contextlib.suppress(UserError):
        if load is load_transformers:
            load(str(folder), device=torch.device("cpu"), dtype=torch.float32, revision=None)
        else:
            load(resolve_model(str(folder)))
    assert not (folder / "ran").exists()


def test_the_fingerprint_is_of_the_weights(folder, saved):
    """Would catch a run that is resumed with other weights, or not resumed because its model was moved."""
    found = resolve_model(str(folder))
    assert found.revision.startswith("sha256:")
    assert found.hub_revision is None
    assert found.revision == resolve_model(str(saved)).revision
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert resolve_model(str(folder)).revision != found.revision


def test_a_resolved_folder_loads_from_elsewhere(folder, monkeypatch, tmp_path):
    """Would catch a relative path that an actor with another working directory cannot find."""
    monkeypatch.chdir(folder.parent)
    found = resolve_model(folder.name)
    monkeypatch.chdir(tmp_path.parent)
    assert found.name == folder.name
    assert FrozenModel.load(found.location, device="cpu").num_layers == 4


# -- the embedded default ------------------------------------------------------------------

SMOLLM2_PROGRAMS = {
    "identity": list(range(30)),
    "skips": [layer for layer in range(30) if layer not in (7, 12, 13, 21)],
    "block-repeat": [*range(12), *range(8, 12), *range(12, 30)],
    "back-and-forth": [*range(10), 14, 13, 12, 12, 11, *range(10, 24), *range(20, 30)],
}
SMOLLM2_PROMPTS = ["7 + 5 =", "The capital of France is", "One, two, three, four, five, six, seven,", "Water boils at"]


@pytest.fixture(scope="session")
def smollm2() -> FrozenModel:
    """The real model, loaded once."""
    return FrozenModel.load("smollm2", device="cpu", dtype="float32")


@pytest.mark.smollm2
def test_smollm2_equals_its_materialized_programs(smollm2, stock_logits, stock_tokens):
    """Would catch what only a trained model's large activations show: another sum, another order of rounding."""
    rows = [smollm2.tokenizer.encode(text) for text in SMOLLM2_PROMPTS]
    wanted = [LayerProgram(layers, 30) for layers in SMOLLM2_PROGRAMS.values()]
    logits, tokens = smollm2.logits(rows, wanted), smollm2.generate(rows, wanted, max_new_tokens=5)
    assert len({len(ids) for ids in rows}) > 1
    for ids, program, ours, new in zip(rows, wanted, logits, tokens):
        oracle = materialize(smollm2.hf_model, program)
        torch.testing.assert_close(ours, stock_logits(oracle, ids), atol=1e-4, rtol=0, msg=str(program))
        assert new == stock_tokens(oracle, ids, 5)


@pytest.mark.smollm2
def test_smollm2_answers(smollm2):
    """Would catch weights that were unpacked wrongly, under which every equality above still holds."""
    ids = smollm2.tokenizer.encode("The capital of France is")
    [tokens] = smollm2.generate([ids], [LayerProgram.identity(30)], max_new_tokens=3)
    assert "Paris" in smollm2.tokenizer.decode(tokens)


@pytest.mark.smollm2
def test_a_large_gguf_file_is_described_without_being_converted(monkeypatch, tmp_path):
    """Would catch a driver that unpacks tens of gigabytes of weights, to read what the file says at its beginning."""
    source = resolve_model("smollm2")
    config, tokenizer = load_description(source)
    monkeypatch.setattr("pipeline.engine.loading._LARGE_FILE", 1)
    monkeypatch.setenv("DRLLM_CACHE", str(tmp_path))
    described, its_tokenizer = load_description(source)
    assert not list(tmp_path.iterdir())
    assert (described.num_hidden_layers, described.vocab_size) == (config.num_hidden_layers, config.vocab_size)
    assert its_tokenizer("2 + 3 = 5").input_ids == tokenizer("2 + 3 = 5").input_ids


@pytest.mark.smollm2
def test_smollm2_resolves_under_both_names():
    """Would catch an embedded default that is looked for on a hub, or has no revision to record."""
    short, long = resolve_model("smollm2"), resolve_model("SmolLM2-135M-Instruct")
    assert short.revision == long.revision
    assert short.revision.startswith("sha256:")

"""``materialize``: a stock model that shares weights, leaves the original alone and can be deployed."""

from __future__ import annotations

import copy

import pytest
import torch

from pipeline.engine import FrozenModel, materialize
from pipeline.program import LayerProgram


def layer_numbers(hf_model) -> list[list[int]]:
    """The numbers that each layer's modules carry."""
    return [
        sorted({module.layer_idx for module in layer.modules() if hasattr(module, "layer_idx")})
        for layer in hf_model.model.layers
    ]


class Streamer:
    """Collects what ``generate`` streams."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_weights_are_shared(engine, program):
    """Would catch a copy of the weights: each program would cost the model's memory again."""
    model = materialize(engine.hf_model, program)
    for clone, layer in zip(model.model.layers, program, strict=True):
        original = dict(engine.hf_model.model.layers[layer].named_parameters())
        for name, parameter in clone.named_parameters():
            assert parameter.data_ptr() == original[name].data_ptr()
    original = {parameter.data_ptr() for parameter in engine.hf_model.parameters()}  # type: ignore[assignment]
    assert {parameter.data_ptr() for parameter in model.parameters()} <= original  # type: ignore[operator]


def test_layers_are_numbered_by_position(engine, program):
    """Would catch a repeated layer that keeps its number, so that both runs share a cache slot."""
    model = materialize(engine.hf_model, program)
    assert type(model) is type(engine.hf_model)
    assert layer_numbers(model) == [[position] for position in range(len(program))]
    assert model.config.num_hidden_layers == len(program)
    assert all(module.config is model.config for module in model.modules() if hasattr(module, "config"))


def test_the_original_is_left_as_it_was(build_model, program, prompt, stock_logits, stock_tokens):
    """Would catch layers that are renumbered in place, or a configuration that both models share."""
    for name in ("llama", "gemma3", "qwen2-moe"):
        original, ids = build_model(name), prompt(15)
        config, numbers = copy.deepcopy(original.config.to_dict()), layer_numbers(original)
        logits, tokens = stock_logits(original, ids), stock_tokens(original, ids, 6)
        model = materialize(original, program)
        stock_tokens(model, ids, 6)
        model.config.vocab_size = model.generation_config.eos_token_id = 1
        assert layer_numbers(original) == numbers == [[layer] for layer in range(4)]
        assert original.config.to_dict() == config
        assert original.generation_config.eos_token_id == 2
        assert torch.equal(stock_logits(original, ids), logits)
        assert stock_tokens(original, ids, 6) == tokens


def test_hooks_stay_on_the_layer_they_are_set_on(llama, programs, prompt, stock_logits):
    """Would catch a probe on one position of a program that also fires at its repeat and on the original model."""
    model = materialize(llama.hf_model, programs["repeat"])
    calls = []
    handle = model.model.layers[1].register_forward_hook(lambda *_: calls.append(1))
    try:
        stock_logits(model, prompt(4))
        assert len(calls) == 1
        stock_logits(llama.hf_model, prompt(4))
        assert len(calls) == 1
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", ["skips", "block-repeat", "back-and-forth"])
def test_a_saved_checkpoint_comes_back(engine, programs, prompt, stock_logits, stock_tokens, tmp_path, kind):
    """Would catch configuration that is not re-ordered: a reloaded layer of another type, or dense for sparse."""
    model = materialize(engine.hf_model, programs[kind])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    for ids in (prompt(9), prompt(20)):
        torch.testing.assert_close(stock_logits(again, ids), stock_logits(model, ids), atol=1e-5, rtol=0)
        assert stock_tokens(again, ids, 4) == stock_tokens(model, ids, 4)
    # A repeated layer is stored twice, under its own weights' names, and nothing else is.
    assert len(again.model.layers) == len(programs[kind])
    assert len(list(again.parameters())) == len(list(model.parameters(recurse=True))) + _repeated(programs[kind], model)


def _repeated(program: LayerProgram, model) -> int:
    """Parameters that ``parameters()`` counts once because a repeated layer shares them."""
    first_runs = {layer: position for position, layer in reversed(list(enumerate(program)))}
    repeats = set(range(len(program))) - set(first_runs.values())
    return sum(len(list(model.model.layers[position].parameters())) for position in repeats)


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen2-moe"])
def test_a_saved_checkpoint_is_a_model_for_the_engine(build_model, programs, prompt, tmp_path, name):
    """Would catch a checkpoint that only stock transformers can run: a search on top of a deployed program."""
    engine = FrozenModel(build_model(name))
    program = programs["block-repeat"]
    materialize(engine.hf_model, program).save_pretrained(tmp_path)
    again = FrozenModel(type(engine.hf_model).from_pretrained(tmp_path))
    ids = prompt(15)
    [logits] = again.logits([ids], [LayerProgram.identity(len(program))])
    torch.testing.assert_close(logits, engine.logits([ids], [program])[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen2-moe"])
def test_a_program_of_a_program_composes(build_model, prompt, stock_logits, name):
    """Would catch re-ordered configuration that is read by the original's layer numbers the second time."""
    original = build_model(name)
    outer, inner = (3, 0, 1, 1, 2), (0, 2, 2, 4, 1)
    model = materialize(materialize(original, LayerProgram(outer, 4)), LayerProgram(inner, 5))
    direct = materialize(original, LayerProgram([outer[position] for position in inner], 4))
    assert torch.equal(stock_logits(model, prompt(15)), stock_logits(direct, prompt(15)))


def test_sampling_runs_from_a_seed(engine, programs, prompt, stock_tokens):
    """Would catch a model on which only greedy decoding works."""
    model, ids = materialize(engine.hf_model, programs["back-and-forth"]), prompt(9)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(stock_tokens(model, ids, 8, do_sample=True, temperature=2.0, eos_token_id=None))
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_streaming_gives_the_generated_tokens(engine, programs, prompt, stock_tokens):
    """Would catch a model whose ``generate`` cannot stream."""
    model, ids, streamer = materialize(engine.hf_model, programs["block-repeat"]), prompt(9), Streamer()
    tokens = stock_tokens(model, ids, 6, streamer=streamer)
    assert streamer.tokens == ids + tokens
    assert streamer.ended


def test_a_program_of_another_depth_is_refused(llama):
    """Would catch a program that was found on another model and runs, wrongly, on this one."""
    with pytest.raises(ValueError, match="5 layers, the model has 4"):
        materialize(llama.hf_model, LayerProgram((0, 1), 5))

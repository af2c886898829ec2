"""The decoder-layer contract: what is outside it is refused by name, and wrong calls are named too."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.decoder_stack import refused_by_name
from pipeline.errors import UserError
from pipeline.program import LayerProgram

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 4}
OPT = {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 32, "max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("config", "model", "values", "reason"),
    [
        ("GPT2", "GPT2LMHeadModel", {**SMALL, "bos_token_id": 1, "eos_token_id": 2}, "it has no model.embed_tokens"),
        ("GPTNeoX", "GPTNeoXForCausalLM", {**SMALL, "intermediate_size": 32}, "it has no model.embed_tokens"),
        ("OPT", "OPTForCausalLM", OPT, "it has no model.embed_tokens"),
        ("Bert", "BertForMaskedLM", {**SMALL, "intermediate_size": 32}, "it has no model.embed_tokens"),
        ("T5", "T5ForConditionalGeneration", T5, "it is an encoder-decoder"),
    ],
)
def test_other_kinds_of_model_are_refused(config, model, values, reason):
    """Would catch an AttributeError deep inside, or worse, a run, on a model without decoder layers of our kind."""
    hf_model = getattr(transformers, model)(getattr(transformers, f"{config}Config")(**values))
    for use in (FrozenModel, lambda hf_model: materialize(hf_model, LayerProgram.identity(2))):
        with pytest.raises(UserError, match=f"{model} .*outside the decoder-layer contract.*{reason}"):
            use(hf_model)


class ScaledLlama(LlamaForCausalLM):
    """Scales the residual stream between embeddings and layers, where no part of the contract says so."""

    def forward(self, input_ids, **arguments):
        return super().forward(inputs_embeds=self.model.embed_tokens(input_ids) * 5.0, **arguments)


@pytest.mark.parametrize(
    ("config", "model", "values"),
    [
        ("LlamaConfig", ScaledLlama, {}),
        ("GraniteConfig", transformers.GraniteForCausalLM, {"embedding_multiplier": 6.0}),
        ("GraniteConfig", transformers.GraniteForCausalLM, {"logits_scaling": 2.0}),
        ("CohereConfig", transformers.CohereForCausalLM, {"logit_scale": 0.0625, "pad_token_id": 0}),
    ],
    ids=["llama-residual", "granite-embedding", "granite-logits", "cohere-logits"],
)
def test_parts_that_are_put_together_differently_are_refused(randomized, config, model, values):
    """Would catch a model with the contract's names and another sum of them: every label would be of another model."""
    hf_model = randomized(model(getattr(transformers, config)(**DECODER, **values)))
    with pytest.raises(UserError, match=f"{model.__name__} .*gives other logits"):
        FrozenModel(hf_model)


def test_a_scale_inside_the_layer_is_no_reason_to_refuse(randomized, prompt, stock_logits):
    """Would catch a check by name: Granite's residual multiplier is applied by its layers and comes out right."""
    config = transformers.GraniteConfig(**DECODER, residual_multiplier=0.5)
    engine = FrozenModel(randomized(transformers.GraniteForCausalLM(config)))
    program, ids = LayerProgram((1, 0, 1), 2), prompt(9, vocab=60)
    expected = stock_logits(materialize(engine.hf_model, program), ids)
    torch.testing.assert_close(engine.logits([ids], [program])[0], expected, atol=1e-4, rtol=0)


def test_attention_of_another_kind_is_refused(build_model):
    """Would catch masks made for SDPA that reach a kernel which reads them in another way."""
    model = build_model("llama")
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UserError, match="'flex_attention' attention, not sdpa or eager"):
        FrozenModel(model)


def test_dynamic_rope_is_refused(build_model):
    """Would catch logits that depend on the longest text that ran before, which stock's own module remembers."""
    dynamic = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    with pytest.raises(UserError, match="rotary embedding"):
        FrozenModel(build_model("llama", rope_parameters=dynamic, max_position_embeddings=16))


def test_layers_of_unknown_type_are_refused(build_model):
    """Would catch chunked or linear attention that runs with a full mask."""
    model = build_model("qwen2")
    model.config.layer_types = ["full_attention", "chunked_attention", "full_attention", "full_attention"]
    with pytest.raises(UserError, match=r"Qwen2ForCausalLM .*layers of type chunked_attention"):
        FrozenModel(model)


def test_a_layer_with_other_arguments_is_refused(build_model):
    """Would catch a TypeError from the middle of a search where the layer's signature has changed."""

    class Other(torch.nn.Module):
        def forward(self, x, past_key_values=None):
            return x

    model = build_model("llama")
    model.model.layers[0] = Other()
    with pytest.raises(UserError, match="its layers do not take hidden_states, attention_mask"):
        FrozenModel(model)


def test_a_window_that_the_family_does_not_read_is_none(build_model, prompt, stock_logits):
    """Would catch a Llama that is refused, or masked, for a key of config.json that transformers ignores."""
    engine = FrozenModel(build_model("llama", sliding_window=3))
    assert engine.hf_model.config.sliding_window == 3
    ids, program = prompt(9), LayerProgram.identity(4)
    torch.testing.assert_close(
        engine.logits([ids], [program])[0], stock_logits(engine.hf_model, ids), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), False),
        (RuntimeError("HIP out of resources"), False),
        (RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu"), True),
        (RuntimeError("Could not run 'aten::x' with arguments from the 'CUDA' backend"), True),
        (TypeError("forward() got an unexpected keyword argument"), True),
    ],
)
def test_an_error_of_the_device_is_no_fault_of_the_model(build_model, error, refused):
    """Would catch a good model that is refused by name, for the whole run, where one GPU is broken."""
    with pytest.raises(Exception) as raised, refused_by_name(build_model("llama")):
        raise error
    assert isinstance(raised.value, UserError) if refused else raised.value is error


# -- wrong calls ---------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["logits", "generate"])
@pytest.mark.parametrize(
    ("rows", "depths", "message"),
    [
        ([[5, 6]], [6], "row 0 is for 6 layers, the model has 4"),
        ([[5, 6], [7]], [4, 3], "row 1 is for 3 layers, the model has 4"),
        ([[5, 6], []], [4, 4], "row 1 has no tokens"),
        ([[5, 6], [7]], [4], "2 rows of tokens but 1 programs"),
        ([], [4], "0 rows of tokens but 1 programs"),
    ],
)
def test_wrong_rows_and_programs_are_refused(llama, call, rows, depths, message):
    """Would catch rows that are dropped or mixed up without a word, and programs of another model."""
    arguments = {"max_new_tokens": 2} if call == "generate" else {}
    with pytest.raises(ValueError, match=message):
        getattr(llama, call)(rows, [LayerProgram.identity(depth) for depth in depths], **arguments)


@pytest.mark.parametrize("max_new_tokens", [0, -1])
def test_at_least_one_token_must_be_wanted(llama, programs, max_new_tokens):
    """Would catch a call that wants no token and gets one."""
    with pytest.raises(ValueError, match=f"max_new_tokens must be at least 1, got {max_new_tokens}"):
        llama.generate([[5, 6]], [programs["repeat"]], max_new_tokens=max_new_tokens)

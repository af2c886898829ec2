"""Tiny random models of every architecture in the contract, and the layer programs that tests run on them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

torch.set_num_threads(1)

NUM_LAYERS = 4
VOCAB = 120
WINDOW = 6

_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_HEADS = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.3, 1.7, 2.0],
    "long_factor": [2.0, 3.0, 5.0, 8.0],
    "original_max_position_embeddings": 16,
    "factor": 16.0,  # 256 positions to 16: what transformers derives from the two, with a log line, where it is absent
}
_GEMMA3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}

# name: (transformers class stem, what its configuration adds)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": WINDOW}),
    "gemma2": ("Gemma2", {**_HEADS, "attn_logit_softcapping": 4.0, "final_logit_softcapping": 5.0}),
    "gemma3": ("Gemma3", {**_HEADS, "layer_types": _MIXED, "rope_parameters": _GEMMA3_ROPE}),
    "phi3": ("Phi3", {"sliding_window": WINDOW}),
    "phi3-longrope": ("Phi3", {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 16}),
    "olmo2": ("Olmo2", {}),
    "olmoe": ("Olmoe", {**_EXPERTS}),
    "qwen2-moe": (
        "Qwen2Moe",
        {**_EXPERTS, "mlp_only_layers": [0], "decoder_sparse_step": 2}
        | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 40},
    ),
}

#: What `make check` leaves out. It runs full attention, a mix of it with windows, a RoPE that switches with the length,
#: and dense layers among layers of experts.
_EXHAUSTIVE = ("qwen2", "qwen3", "mistral", "mistral-window", "gemma2", "phi3", "olmo2", "olmoe")
#: Names for ``parametrize``; `make test` runs all.
ARCHITECTURE_PARAMETERS = [
    pytest.param(name, marks=pytest.mark.exhaustive) if name in _EXHAUSTIVE else name for name in ARCHITECTURES
]

# One program of each kind that the search makes, on four layers.
PROGRAMS = {
    "identity": (0, 1, 2, 3),
    "skips": (0, 3),
    "repeat": (0, 1, 1, 2, 3),
    "block-repeat": (0, 1, 2, 1, 2, 3),
    "back-and-forth": (2, 0, 3, 1, 1, 0, 3),
}


def randomize(hf_model: Any, seed: int = 0) -> Any:
    """Give every tensor weights of a trained model's size: at the usual 0.02, wrong layers hardly show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in hf_model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(1.5 * noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.2 * noise)
    return hf_model.eval()


def build(name: str, **overrides: Any) -> Any:
    """A fresh tiny model; ``overrides`` go into its configuration."""
    stem, extra = ARCHITECTURES[name]
    text = "Text" if stem == "Gemma3" else ""
    config = getattr(transformers, f"{stem}{text}Config")(**{**_SIZES, **extra, **overrides})
    return randomize(getattr(transformers, f"{stem}ForCausalLM")(config))


#: What tiny models of other families need beside ``_SIZES``: latent attention, experts, states of recurrent layers.
_OTHERS: dict[str, Any] = {
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "moe_intermediate_size": 24,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
_OTHERS_OF: dict[str, dict[str, Any]] = {
    "gemma4_text": {"head_dim": 8, "global_head_dim": 8, "vocab_size_per_layer_input": VOCAB}
    | {"hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0},
    "helium": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "deepseek_v2": {"head_dim": 8, "num_key_value_heads": 4},
    "deepseek_v3": {"head_dim": 8, "num_key_value_heads": 4},
}


def family_config(model_type: str, **overrides: Any) -> Any:
    """A tiny configuration of any model type that transformers knows; what the type has no use for is ignored."""
    return CONFIG_MAPPING[model_type](**{**_SIZES, **_OTHERS, **_OTHERS_OF.get(model_type, {}), **overrides})


def build_family(model_type: str, **overrides: Any) -> Any:
    """A tiny model of any model type that transformers knows."""
    config = family_config(model_type, **overrides)
    return randomize(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def rearranged(hf_model: Any, layers: Sequence[int]) -> Any:
    """A deep copy of a model with other layers in its list: an oracle that shares no code with the engine."""
    model = copy.deepcopy(hf_model)
    model.model.layers = torch.nn.ModuleList(copy.deepcopy(hf_model.model.layers[layer]) for layer in layers)
    for position, layer in enumerate(model.model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
    for config in {
        id(module.config): module.config for module in model.modules() if hasattr(module, "config")
    }.values():
        config.num_hidden_layers = len(layers)
        for name in ("layer_types", "layer_rope_theta"):  # what models read of it while they run
            if (values := getattr(hf_model.config, name, None)) is not None:
                setattr(config, name, [values[layer] for layer in layers])
    return model

"""The check of a model's family before its weights are loaded: on a small random model of its configuration.

The small model has the class, the kinds of layers, the rotary embedding and the head sizes of the large one, and few
layers, heads, experts and tokens. Its windows are shorter than the check's text, so that masks are checked too.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from pipeline.engine.decoder_stack import DecoderStack, check_structure, refused_by_name
from pipeline.engine.layer_config import is_dense, values_by_layer, with_layers
from pipeline.engine.stock_check import are_finite, check_against_stock, logits_of

logger = logging.getLogger(__name__)

#: Layers of the small model: the first ones, and the first one of each further kind.
_FIRST_LAYERS, _MOST_LAYERS = 4, 8
#: The largest values of the small model's configuration, by the attribute's name; of sizes of layers and of
#: vocabularies by a part of the name.
_MOST = {
    "vocab_size": 128,
    "intermediate_size": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "sliding_window": 6,
    "attention_chunk_size": 6,
}
_MOST_HEADS = 4
#: A model that is still larger is not built.
_MOST_PARAMETERS = 100_000_000


def check_family(config: Any) -> None:
    """Refuse a configuration whose family the engine does not run as stock transformers does.

    Where no small model can be built, or stock transformers cannot run it, nothing is known, and the check on loading
    decides. It takes a few tenths of a second.

    Args:
        config: The model's configuration; left as it is.

    Raises:
        UserError: The family is outside the contract.
    """
    model = _quietly(lambda: _small_model(config))
    if model is None:
        model = _quietly(lambda: _without_memory(config))
        if model is not None:
            with refused_by_name(model):
                check_structure(model)
        return
    if _quietly(lambda: are_finite(logits_of(model, [1, 2, 3]))):
        with refused_by_name(model):
            check_against_stock(DecoderStack(model))
    else:
        with refused_by_name(model):
            check_structure(model)


def _quietly(build: Any) -> Any:
    """The result of a call; None where it fails, since a configuration from outside may say anything."""
    try:
        with torch.no_grad():
            return build()
    except Exception as error:
        logger.debug("no small model: %s: %s", type(error).__name__, error)
        return None


def _small_model(config: Any) -> Any:
    """A small random model of a configuration's class."""
    small = _small_config(config)
    size = sum(parameter.numel() for parameter in _without_memory(small).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"it has {size} parameters")
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, trust_remote_code=False)
        return _randomize(model).eval()


def _without_memory(config: Any) -> Any:
    """A model of a configuration whose parameters have shapes alone."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)


def _small_config(config: Any) -> Any:
    config = with_layers(config, _kept_layers(config))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if heads > _MOST_HEADS:
        kv_heads = getattr(config, "num_key_value_heads", None)
        config.num_attention_heads = _MOST_HEADS
        if kv_heads is not None:
            config.num_key_value_heads = _MOST_HEADS if kv_heads == heads else min(kv_heads, _MOST_HEADS // 2)
        config.hidden_size = _MOST_HEADS * head_size
    for name, value in list(vars(config).items()):
        most = _MOST.get(name) or next((_MOST[end] for end in ("intermediate_size", "vocab_size") if end in name), None)
        if most is not None and isinstance(value, int) and not isinstance(value, bool):
            setattr(config, name, min(value, most))
        elif most is not None and isinstance(value, list):
            setattr(config, name, [min(one, most) for one in value])
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        token = getattr(config, name, None)
        # Some configurations take no None, and some models look a token up in their embedding.
        if isinstance(token, list):
            setattr(config, name, [0])
        elif isinstance(token, int) and token >= config.vocab_size:
            setattr(config, name, 0)
    return config


def _kept_layers(config: Any) -> list[int]:
    """The first layers, and the first one of each further kind, among them the first dense and the first of experts."""
    depth = config.num_hidden_layers
    columns = list(values_by_layer(config).values())
    kinds = [repr([is_dense(config, layer), *(column[layer] for column in columns)]) for layer in range(depth)]
    firsts = [layer for layer, kind in enumerate(kinds) if kinds.index(kind) == layer]
    return sorted({*range(min(depth, _FIRST_LAYERS)), *firsts})[:_MOST_LAYERS]


def _randomize(model: Any) -> Any:
    """Give a model weights of a trained model's size: at the usual 0.02 a wrong layer hardly shows."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.copy_(1.5 * noise / parameter.shape[-1] ** 0.5)
        else:
            parameter.add_(0.2 * noise)
    return model

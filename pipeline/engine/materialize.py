"""A layer program as a stock transformers model that shares the frozen weights.

The result is an ordinary model of K layers. Everything that the engine computes must equal what it
computes, and it is also the way to deploy a fixed program: stock ``generate``, streaming, sampling and
``save_pretrained`` work on it.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from pipeline.engine.decoder_stack import DecoderStack
from pipeline.engine.layer_config import with_layers
from pipeline.engine.weight_sharing import replace_config, share_weights
from pipeline.program import LayerProgram


def materialize(hf_model: Any, program: LayerProgram) -> Any:
    """Build a stock model whose ``layers`` are the program's, sharing every weight with ``hf_model``.

    Each position gets its own shallow copy of its layer, numbered 0…K-1, so that a stock cache keeps a
    slot for each; configuration that goes by layer is re-ordered to match.

    Args:
        hf_model: A transformers causal language model inside the contract.
        program: The layers to run; its ``num_layers`` must be the model's.

    Returns:
        A model of the same class with ``config.num_hidden_layers == len(program)``. Its parameters are
        the same tensors: no weight is copied, and changing one changes both.

    Raises:
        UserError: The model is outside the contract.
        ValueError: The program is for a model of another depth.
    """
    stack = DecoderStack(hf_model)
    if program.num_layers != stack.num_layers:
        raise ValueError(f"the program is for {program.num_layers} layers, the model has {stack.num_layers}")

    model = share_weights(hf_model)
    config = with_layers(hf_model.config, program.layers)
    layers = nn.ModuleList()
    for position, layer in enumerate(program):
        clone = share_weights(hf_model.model.layers[layer])
        for module in clone.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = position
        layers.append(clone)
    layers.register_state_dict_post_hook(_separate_repeats)  # type: ignore[no-untyped-call]
    model.model.layers = layers
    replace_config(model, hf_model.config, config)
    model.generation_config = copy.deepcopy(hf_model.generation_config)
    return model


def _separate_repeats(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]) -> None:
    """A repeated layer is stored twice in a checkpoint, which cannot say that two layers share tensors."""
    seen: set[int] = set()
    for name in [name for name in state if name.startswith(prefix)]:
        tensor = state[name]
        if tensor.data_ptr() in seen:
            state[name] = tensor.clone()
        seen.add(tensor.data_ptr())

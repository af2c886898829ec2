"""Configuration that goes by layer: which layers have a window, a position embedding, experts.

transformers keeps it in lists with a value for each layer (``layer_types``, SmolLM3's ``no_rope_layers``,
``mlp_layer_types``), in lists of indices (``mlp_only_layers``) and in thresholds (``first_k_dense_replace``).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

#: Lists that hold something else, even where they happen to be as long as the model is deep.
_NOT_BY_LAYER = ("architectures", "mlp_only_layers")
_NOT_BY_LAYER_ENDINGS = ("_token_id", "_token_ids", "_tokens", "_ids")


def values_by_layer(config: Any) -> dict[str, list[Any]]:
    """The attributes of a configuration that are a list with a value for each layer."""
    return {
        name: list(value)
        for name, value in vars(config).items()
        if isinstance(value, list | tuple)
        and len(value) == config.num_hidden_layers
        and name not in _NOT_BY_LAYER
        and not name.endswith(_NOT_BY_LAYER_ENDINGS)
    }


def with_layers(config: Any, layers: Sequence[int]) -> Any:
    """A copy of a configuration for a model that has the given layers of the original, in their order.

    Not everything can be said: a layer of experts before a dense one cannot, where one number separates the two. The
    caller compares the models.

    Args:
        config: The original's configuration.
        layers: For each layer of the copy its index in the original.
    """
    by_layer = values_by_layer(config)
    dense = [is_dense(config, layer) for layer in layers]
    config = copy.deepcopy(config)
    config.num_hidden_layers = len(layers)
    for name, values in by_layer.items():
        setattr(config, name, [values[layer] for layer in layers])
    if hasattr(config, "mlp_only_layers"):
        config.mlp_only_layers = [position for position, one in enumerate(dense) if one]
        config.decoder_sparse_step = 1
    elif isinstance(getattr(config, "first_k_dense_replace", None), int):
        config.first_k_dense_replace = sum(dense)
    return config


def is_dense(config: Any, layer: int) -> bool:
    """Whether a layer's index makes it a dense one among layers of experts."""
    if hasattr(config, "mlp_only_layers"):  # the families of Qwen
        return layer in (config.mlp_only_layers or []) or (layer + 1) % config.decoder_sparse_step != 0
    return layer < (getattr(config, "first_k_dense_replace", None) or 0)  # those of DeepSeek

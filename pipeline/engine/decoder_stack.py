"""The decoder-layer contract: the requirements of the engine on a transformers model, and their check.

Llama, Qwen2, Qwen3, Mistral, Gemma 2, Gemma 3 (text), Phi-3, OLMo 2, OLMoE and Qwen2-MoE share it in
transformers 5: ``model.embed_tokens``, a list ``model.layers`` whose members take
``(hidden_states, attention_mask, position_ids, position_embeddings)`` and a cache, ``model.norm``,
``model.rotary_emb`` and ``lm_head``. The model's own modules are called as they are, on copies that share its
weights and name the engine's attention function; no modeling file is copied or patched.

Shapes: B rows, T tokens, N tokens of several texts one behind the other, D hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.engine.batch_limit import out_of_memory
from pipeline.engine.packed_attention import PACKED, MaskOf, PackedAttention
from pipeline.engine.weight_sharing import replace_config, share_weights
from pipeline.errors import UserError

FULL = "full_attention"
SLIDING = "sliding_attention"

_BODY_PARTS = ("embed_tokens", "layers", "norm", "rotary_emb")
_LAYER_ARGUMENTS = ("hidden_states", "attention_mask", "position_ids", "position_embeddings")
#: What layers call their cache: the name of transformers 5.40, and the one before.
_CACHE_ARGUMENTS = ("cache", "past_key_values")

#: Errors of GPUs and their libraries. An operation that torch lacks "from the 'CUDA' backend" is none of them.
_DEVICE_LIBRARY = re.compile(r"\b(?:(?:CUDA|HIP) (?:error|driver|out of)|CUBLAS|cuBLAS|CUDNN|cuDNN|NVML)(?![a-z])")

#: Cosines and sines ``[T, head_dim]`` by layer type; the key is None where all layers share them.
Rotary = dict[str | None, tuple[torch.Tensor, torch.Tensor]]


class DecoderStack:
    """The parts of a causal language model that a layer program composes.

    Args:
        hf_model: A transformers causal language model.

    Raises:
        UserError: The model is outside the contract; the message names its class and what differs.
    """

    def __init__(self, hf_model: Any) -> None:
        check_structure(hf_model)
        self.hf_model = hf_model
        self.body = hf_model.model
        self.config = hf_model.config
        #: The name under which the layers take their cache.
        self.cache_argument = _cache_argument(hf_model)
        self.layers: nn.ModuleList = share_weights(self.body.layers)
        config = copy.deepcopy(self.config)
        config._attn_implementation = PACKED
        replace_config(self.layers, self.config, config)
        self.layer_types = _layer_types(hf_model)
        self.window = _window(self.config)
        self.attention: str = self.config._attn_implementation
        #: Beyond this text length the rotary embedding changes for the whole text, so rows cannot share
        #: one and keys from before are void. None where positions alone decide.
        self.rope_switch: int | None = _rope_switch(self.config)
        self.softcap: float | None = getattr(self.config, "final_logit_softcapping", None)
        self._rotary_by_type = "layer_type" in inspect.signature(self.body.rotary_emb.forward).parameters

    @property
    def num_layers(self) -> int:
        """Depth L of the model."""
        return len(self.layers)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Token ids ``[N]`` to the residual stream ``[N, D]``."""
        hidden: torch.Tensor = self.body.embed_tokens(token_ids)
        return hidden

    def rotary(self, length: int) -> Rotary:
        """Cosines and sines of the positions 0…length-1, as a text of that length reads them."""
        positions = torch.arange(length, device=self.hf_model.device)[None]
        like = torch.empty(0, dtype=self.hf_model.dtype, device=self.hf_model.device)
        kinds: list[str | None] = [*sorted(set(self.layer_types))] if self._rotary_by_type else [None]
        result: Rotary = {}
        for kind in kinds:
            cos, sin = self.body.rotary_emb(*((like, positions) if kind is None else (like, positions, kind)))
            result[kind] = (cos[0], sin[0])
        return result

    def run_layer(
        self,
        layer: int,
        hidden: torch.Tensor,
        *,
        positions: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        attention: PackedAttention,
    ) -> torch.Tensor:
        """One decoder layer on packed tokens.

        Args:
            layer: Index of the layer in the model.
            hidden: Residual stream ``[N, D]``.
            positions: Each token's position in its text, ``[N]``.
            rotary: Cosines and sines of the positions, ``[N, head_dim]``.
            attention: Which tokens see which.

        Returns:
            The new residual stream, ``[N, D]``.

        Raises:
            KeysTaken: ``attention`` is ``KeysOnly``; it holds the keys and values now.
        """
        cos, sin = rotary
        output = self.layers[layer](
            hidden[None],
            attention_mask=attention,
            position_ids=positions[None],
            position_embeddings=(cos[None], sin[None]),
            **{self.cache_argument: None},
        )
        result: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return result[0]

    def of_kind(self, rotary: Rotary, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The cosines and sines that a layer reads."""
        return rotary[None] if None in rotary else rotary[self.layer_types[layer]]

    def mask_of(self, layer: int) -> MaskOf:
        """The masks of a layer's kind: see ``attention_mask``."""
        kind = self.layer_types[layer]
        return lambda positions, extent: self.attention_mask(positions, extent, kind, self.hf_model.dtype)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final norm and language-model head: ``[..., D]`` to logits ``[..., V]``."""
        logits: torch.Tensor = self.hf_model.lm_head(self.body.norm(hidden))
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def attention_mask(
        self, positions: torch.Tensor, extent: int, layer_type: str, dtype: torch.dtype
    ) -> torch.Tensor | None:
        """Which of the keys 0…extent-1 each query at ``positions`` ``[B, T]`` may see.

        A key's index is its token's position, so causality alone also hides padding, which lies
        behind each row's tokens, and slots that are not written yet.

        Returns:
            ``[B, 1, T, extent]``: booleans for SDPA, an additive mask for eager attention; None
            where SDPA's own causal (or unrestricted) attention says the same.
        """
        window = self.window if layer_type == SLIDING else None
        num_queries = positions.shape[1]
        if self.attention == "sdpa" and (window is None or extent <= window):
            whole_prompt = num_queries == extent and num_queries > 1
            newest_token = num_queries == 1 and bool((positions == extent - 1).all())
            if whole_prompt or newest_token:
                return None
        keys = torch.arange(extent, device=positions.device)
        queries = positions[:, None, :, None]
        visible = keys <= queries
        if window is not None:
            visible &= keys > queries - window
        if self.attention == "sdpa":
            return visible
        blocked = torch.finfo(dtype).min
        return torch.zeros(visible.shape, dtype=dtype, device=positions.device).masked_fill(~visible, blocked)


def _cache_argument(hf_model: Any) -> str:
    """The name under which a layer, or the attention that it hands its arguments on to, takes a cache."""
    layer = hf_model.model.layers[0]
    for module in (layer, getattr(layer, "self_attn", None)):
        accepted = _arguments(module)
        for name in _CACHE_ARGUMENTS:
            if name in accepted:
                return name
    raise refusal(hf_model, f"its layers do not take {' or '.join(_CACHE_ARGUMENTS)}")


def _arguments(module: nn.Module | None) -> Mapping[str, inspect.Parameter]:
    return {} if module is None else inspect.signature(type(module).forward).parameters


def _layer_types(hf_model: Any) -> list[str]:
    config = hf_model.config
    depth = len(hf_model.model.layers)
    declared = getattr(config, "layer_types", None)
    if declared is None:
        return [FULL if _window(config) is None else SLIDING] * depth
    unknown = sorted(set(declared) - {FULL, SLIDING})
    if unknown:
        raise refusal(hf_model, f"it has layers of type {', '.join(unknown)}")
    return list(declared)


def _window(config: Any) -> int | None:
    """Tokens that a layer with a window sees; None without one.

    transformers keeps whatever a ``config.json`` holds; a family that does not declare a window does not read it.
    """
    return getattr(config, "sliding_window", None) if hasattr(type(config), "sliding_window") else None


def _rope_switch(config: Any) -> int | None:
    """Text length beyond which the rotary embedding changes for the whole text (longrope); None if never."""
    if "'longrope'" not in str(_rope_parameters(config)):
        return None
    parameters: dict[str, Any] = _rope_parameters(config)
    original = parameters.get("original_max_position_embeddings")
    return int(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))


def _rope_parameters(config: Any) -> Any:
    return getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)


def check_structure(hf_model: Any) -> None:
    """Refuse a model whose parts are not those of the contract; no weight is read.

    Raises:
        UserError: A part is missing, or of another kind.
    """
    if getattr(hf_model.config, "is_encoder_decoder", False):
        raise refusal(hf_model, "it is an encoder-decoder")
    if getattr(hf_model.config, "is_heterogeneous", False):
        raise refusal(hf_model, "its layers have configurations of their own (per_layer_config)")
    body: Any = getattr(hf_model, "model", None)
    missing = [f"model.{part}" for part in _BODY_PARTS if not hasattr(body, part)]
    if not hasattr(hf_model, "lm_head"):
        missing.append("lm_head")
    if missing:
        raise refusal(hf_model, f"it has no {', '.join(missing)}")
    accepted = _arguments(body.layers[0])
    # Layers hand other arguments on to their attention; the two that carry the data must be their own.
    takes_others = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    required = _LAYER_ARGUMENTS[:2] if takes_others else _LAYER_ARGUMENTS
    absent = [name for name in required if name not in accepted]
    if absent:
        raise refusal(hf_model, f"its layers do not take {', '.join(absent)}")
    if "'dynamic'" in str(_rope_parameters(hf_model.config)):
        # Its module remembers the longest text that it has seen: results would depend on earlier calls.
        raise refusal(hf_model, "its rotary embedding ('dynamic') depends on the texts that ran before")
    if hf_model.config._attn_implementation not in ("sdpa", "eager"):
        raise refusal(
            hf_model, f"it was loaded with {hf_model.config._attn_implementation!r} attention, not sdpa or eager"
        )


def refusal(hf_model: Any, reason: str) -> UserError:
    """The error of a model outside the contract, which names its class, its type and what differs."""
    return UserError(
        f"{type(hf_model).__name__} (model type {hf_model.config.model_type!r}) is outside the decoder-layer "
        f"contract that layer programs need: {reason}. Tested architectures: Llama, Qwen2, Qwen3, Mistral, "
        "Gemma 2, Gemma 3 (text), Phi-3, OLMo 2, OLMoE, Qwen2-MoE."
    )


def _of_the_device(error: Exception) -> bool:
    """Whether an error says that memory ran out, or that a GPU failed; torch has no class for many of those."""
    if out_of_memory(error) or isinstance(error, getattr(torch, "AcceleratorError", ())):
        return True
    return isinstance(error, RuntimeError) and _DEVICE_LIBRARY.search(str(error)) is not None


@contextmanager
def refused_by_name(hf_model: Any) -> Iterator[None]:
    """Turn every error of a model's parts into a refusal of the model: whatever they miss, the engine cannot run it.

    Errors of the device stay what they are: there is nothing wrong with a model that does not fit.

    Raises:
        UserError: Something was raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _of_the_device(error):
            raise
        what = " ".join(str(error).split())[:300]
        raise refusal(hf_model, f"the engine cannot run it ({type(error).__name__}: {what})") from error

"""The tiny Llama as transformers 5.40 will have it: its layers take ``cache``, not ``past_key_values``."""

from __future__ import annotations

from typing import Any

import torch
from architectures import build
from transformers import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaModel


class RenamedLayer(LlamaDecoderLayer):
    """A layer that would raise a TypeError for the old name."""

    def forward(self, hidden_states, attention_mask=None, position_ids=None, cache=None, position_embeddings=None):
        return super().forward(hidden_states, attention_mask, position_ids, cache, False, position_embeddings)


class RenamedBody(LlamaModel):
    """Hands its cache on under the new name."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        hidden = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            past = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(past, past + hidden.shape[1])[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        rotary = self.rotary_emb(hidden, position_ids=position_ids)
        for layer in self.layers:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_ids=position_ids,
                cache=past_key_values,
                position_embeddings=rotary,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden), past_key_values=past_key_values)


def build_renamed() -> Any:
    """The tiny Llama with renamed arguments; its weights are those of ``build("llama")``."""
    model = build("llama")
    model.model.__class__ = RenamedBody
    for layer in model.model.layers:
        layer.__class__ = RenamedLayer
    return model

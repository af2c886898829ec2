"""The name under which layers take their cache: the installed transformers' own, without a line of complaint."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, PROGRAMS, build
from renamed_cache import build_renamed
from silence import silent

from pipeline.engine import FrozenModel, materialize
from pipeline.engine.decoder_stack import DecoderStack
from pipeline.errors import UserError
from pipeline.program import LayerProgram

IDS = [5, 6, 7, 8, 9, 10, 11, 12, 13]
REPEAT = LayerProgram(PROGRAMS["block-repeat"], NUM_LAYERS)


@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_nothing_warns_of_a_name_that_goes_away(name, tmp_path, stock_tokens):
    """Catches an argument that transformers deprecates: a line in every process today, a TypeError tomorrow."""
    with silent():
        made = build(name)
        made.save_pretrained(tmp_path)
        engine = FrozenModel(type(made).from_pretrained(tmp_path))
        engine.logits([IDS], [REPEAT])
        [tokens] = engine.generate([IDS], [REPEAT], max_new_tokens=4)
        assert tokens == stock_tokens(materialize(engine.hf_model, REPEAT), IDS, 4)


@pytest.mark.parametrize("say", [warnings.warn, logging.getLogger("transformers.models").warning_once])  # type: ignore[attr-defined]
def test_the_listener_hears_what_is_said_once_a_process(say):
    """Catches a test above that passes because an earlier one in the same process has used up the line."""
    logging.getLogger("transformers.models").warning_once("the argument goes away")  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="the argument goes away"), silent():
        say("the argument goes away")


def test_layers_that_only_know_the_new_name_run(llama, stock_tokens):
    """Catches a ``past_key_values`` that is passed to layers of transformers 5.40, which do not take it."""
    model = build_renamed()
    engine = FrozenModel(model)
    assert engine.stack.cache_argument == "cache"
    assert torch.equal(engine.logits([IDS], [REPEAT])[0], llama.logits([IDS], [REPEAT])[0])
    [tokens] = engine.generate([IDS], [REPEAT], max_new_tokens=4)
    assert tokens == stock_tokens(materialize(model, REPEAT), IDS, 4)


class OldAttention(torch.nn.Module):
    """Takes its cache under the old name."""

    def forward(self, hidden_states, past_key_values=None):
        return hidden_states


class HandsOn(torch.nn.Module):
    """A layer that leaves all but the data to its attention, as transformers allows."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.self_attn = attention

    def forward(self, hidden_states, attention_mask=None, **rest):
        return hidden_states


def test_the_name_may_be_the_attentions():
    """Catches a refusal of layers that hand their arguments on, which the contract allows."""
    model = build("llama")
    model.model.layers[0] = HandsOn(OldAttention())
    assert DecoderStack(model).cache_argument == "past_key_values"


def test_layers_without_a_cache_are_refused():
    """Catches layers that keep their keys elsewhere: a repeated layer would read those of its first run."""
    model = build("llama")
    model.model.layers[0] = HandsOn(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="its layers do not take cache or past_key_values"):
        DecoderStack(model)

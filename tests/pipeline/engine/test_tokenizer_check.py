"""A tokenizer that is not the model's is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny_model
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.engine import FrozenModel
from pipeline.engine.tokenizer_check import check_tokenizer
from pipeline.errors import UserError

ROWS = 257


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 257 embeddings and as many tokens."""
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    """A fresh tokenizer of 257 tokens."""
    return AutoTokenizer.from_pretrained(folder)


def test_the_models_own_tokenizer_passes(tokenizer):
    """Catches a check that counts from the wrong end; an embedding may have rows that no token uses."""
    assert len(tokenizer) == ROWS
    for rows in (ROWS, ROWS + 63, None):
        check_tokenizer("m", tokenizer, num_embeddings=rows)


@pytest.mark.parametrize("add", ["add_tokens", "add_special_tokens"])
def test_tokens_without_an_embedding_are_refused(tokenizer, add):
    """Catches an index error in the middle of a search, on the first prompt that the chat template writes."""
    tokens = ["<|user|>", "<|end|>", "<|assistant|>"]
    getattr(tokenizer, add)(tokens if add == "add_tokens" else {"additional_special_tokens": tokens})
    with pytest.raises(UserError, match=r"model 'm' .*3 of its tokens, first '<\|user\|>' \(257\).*embedding of 257"):
        check_tokenizer("m", tokenizer, num_embeddings=ROWS)


@pytest.mark.parametrize("token", ["[PAD]", "<image_soft_token>"])
def test_a_token_that_no_prompt_holds_needs_no_embedding(tokenizer, token):
    """Catches a refusal of Gemma 3's text models: their tokenizer has one token more, for pictures."""
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    assert len(tokenizer) == ROWS + 1
    check_tokenizer("m", tokenizer, num_embeddings=ROWS)
    tokenizer.chat_template = f"{{{{ '{token}' }}}}"
    with pytest.raises(UserError, match=re.escape(token)):
        check_tokenizer("m", tokenizer, num_embeddings=ROWS)


def test_an_empty_tokenizer_is_refused():
    """Catches prompts of no tokens: transformers makes an empty tokenizer where a folder holds none."""
    empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    with pytest.raises(UserError, match="model 'm' has no tokenizer, or an empty one"):
        check_tokenizer("m", empty, num_embeddings=ROWS)


def test_a_model_is_refused_before_its_weights_are_read(folder, tmp_path):
    """Catches minutes of loading, for a tokenizer that ends the search."""
    model = save_tiny_model(tmp_path / "model")
    for file in model.glob("*.safetensors"):
        file.write_bytes(b"")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(model)
    with pytest.raises(UserError, match="a tokenizer that does not go with it"):
        FrozenModel.load(str(model), device="cpu")

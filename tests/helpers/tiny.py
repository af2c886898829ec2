"""A tiny random model in a folder, and questions for it: runs that need no real weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

NUM_LAYERS = 6


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with a token for each byte, and an end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(["</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def save_tiny_model(folder: Path) -> Path:
    """A Llama of six layers over bytes, with weights large enough that every layer matters."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder)

    generator = torch.Generator().manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 1.2 / parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    return folder


def write_questions(file: Path, count: int) -> Path:
    """Four-way questions in ARC's schema; a random model has about one in four right."""
    rows = (
        {
            "id": f"tiny-{number:02d}",
            "question": f"Which of these is number {number * 37 % 101}?",
            "choices": {"text": [f"{number}{side}" for side in "abcd"], "label": list("ABCD")},
            "answerKey": "ABCD"[number % 4],
        }
        for number in range(count)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file

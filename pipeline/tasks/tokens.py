"""Token ids of a prompt, with the special tokens of its tokenizer once."""

from __future__ import annotations

from typing import Any


def tokens_of(tokenizer: Any, text: str, *, add_special_tokens: bool) -> list[int]:
    """Token ids of a text.

    A prompt that was rendered with a chat template begins with the begin token already; it gets no second one.

    Args:
        tokenizer: A tokenizer of transformers.
        text: The text.
        add_special_tokens: Whether the tokenizer adds its special tokens.
    """
    tokens: list[int] = tokenizer(text, add_special_tokens=add_special_tokens).input_ids
    begin = getattr(tokenizer, "bos_token_id", None)
    twice = add_special_tokens and begin is not None and tokens[:2] == [begin, begin]
    return tokens[1:] if twice else tokens

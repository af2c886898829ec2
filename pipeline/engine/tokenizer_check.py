"""The check of a model's tokenizer: it is there, and every token that it may write has an embedding."""

from __future__ import annotations

import re
from typing import Any

from pipeline.errors import UserError

#: A text that every tokenizer of a language model can write.
_TEXT = "The answer is 42."
#: The names of special tokens that no prompt here holds: padding, and what stands for pictures and sounds.
_UNUSED = re.compile(r"pad|image|audio|video", re.IGNORECASE)


def check_tokenizer(name: str, tokenizer: Any, *, num_embeddings: int | None) -> None:
    """Refuse a tokenizer that is not the model's.

    A token without an embedding ends an actor in the middle of a search, on a GPU without a message. Gemma 3 has one
    for pictures, which its text models never read.

    Args:
        name: Name of the model, for messages.
        tokenizer: The tokenizer.
        num_embeddings: Rows of the model's embedding; None where the configuration does not say.

    Raises:
        UserError: The tokenizer is empty, or may write tokens that the model has no embedding of.
    """
    written = set(tokenizer(_TEXT, add_special_tokens=False).input_ids)
    if written <= set(tokenizer.all_special_ids):
        raise UserError(
            f"model {name!r} has no tokenizer, or an empty one: it writes {_TEXT!r} in no tokens of its own; put the "
            "tokenizer's files (tokenizer.json, tokenizer_config.json) beside the weights"
        )
    if num_embeddings is None:
        return
    added, template = tokenizer.added_tokens_decoder, str(tokenizer.chat_template)
    beyond = sorted(
        (index, token)
        for token, index in tokenizer.get_vocab().items()
        if index >= num_embeddings
        and not (index in added and added[index].special and _UNUSED.search(token) and token not in template)
    )
    if beyond:
        index, token = beyond[0]
        raise UserError(
            f"model {name!r} has a tokenizer that does not go with it: {len(beyond)} of its tokens, first {token!r} "
            f"({index}), have no row in the embedding of {num_embeddings}; take the tokenizer that belongs to the "
            "weights, or resize the embedding (resize_token_embeddings) and save the model again"
        )

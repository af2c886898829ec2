"""The prompt in which a text is given to the model whose hidden states are read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.tasks.tokens import tokens_of

#: Stands for the text in a template.
TEXT = "{text}"
#: Most that new states take on the disk by default, in GiB.
MOST_GIB = 32.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTemplate:
    """The text around each text that the model reads.

    Raises:
        UserError: A field is out of its range.
    """

    template: str = TEXT
    """Prompt of a text; contains ``{text}`` once, where the data's text is inserted."""
    max_tokens: int | None = field(default=None, metadata=option(at_least=1, unset="what the model was made for"))
    """Longer texts are cut to so many tokens."""
    add_special_tokens: bool = True
    """Whether the tokenizer adds its special tokens."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.template.count(TEXT) != 1:
            raise UserError(f"--template must contain {TEXT} once, got {self.template!r}")

    def key(self, text: str) -> str:
        """Names a text's states within a store."""
        put = [self.max_tokens, self.template, self.add_special_tokens, text]
        return hashlib.sha256(json.dumps(put).encode()).hexdigest()[:32]

    def tokens(self, tokenizer: Any, text: str, context: int) -> tuple[list[int], bool]:
        """A text's token ids, and whether its end was cut off to make room.

        Raises:
            UserError: The text has no tokens, or the template alone is too long.
        """
        most = min(self.max_tokens or context, context)
        tokens, cut = self._tokens(tokenizer, text), text
        while len(tokens) > most and cut:
            # What stands behind the text stays. Where tokens are long a second round may be needed.
            keep = int(len(cut) * most / len(tokens))
            cut = cut[: min(keep, len(cut) - 1)]
            tokens = self._tokens(tokenizer, cut)
        if not tokens or len(tokens) > most:
            raise UserError(
                f"the text {text[:40]!r} cannot be read within {most} tokens: the template alone is longer"
                if tokens
                else f"the text {text[:40]!r} has no tokens"
            )
        return tokens, cut != text

    def _tokens(self, tokenizer: Any, text: str) -> list[int]:
        return tokens_of(tokenizer, self.template.replace(TEXT, text), add_special_tokens=self.add_special_tokens)

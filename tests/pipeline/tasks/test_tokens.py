"""Token ids of a prompt, with the special tokens once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.tasks import TASKS, Example
from pipeline.tasks.tokens import tokens_of

BEGIN = 1


class Tokenizer:
    """A byte is a token; ``<s>`` is the begin token, which is put in front of every text if it is asked for."""

    bos_token_id = BEGIN
    chat_template = None

    def __call__(self, text, *, add_special_tokens=True):
        tokens = [BEGIN] * text.count("<s>") + list(text.replace("<s>", "").encode())
        return SimpleNamespace(input_ids=[BEGIN, *tokens] if add_special_tokens else tokens)


@pytest.mark.parametrize(
    ("text", "add_special_tokens", "number"),
    [("2 + 2 =", True, 1), ("2 + 2 =", False, 0), ("<s>[INST] 2 [/INST]", True, 1), ("<s>[INST] 2 [/INST]", False, 1)],
)
def test_the_begin_token_comes_once(text, add_special_tokens, number):
    """Catches a prompt that carries its template, and gets a second begin token, which no model was trained on."""
    tokens = tokens_of(Tokenizer(), text, add_special_tokens=add_special_tokens)
    assert tokens.count(BEGIN) == number and bytes(tokens[number:]).decode() == text.replace("<s>", "")


def test_answers_behind_such_a_prompt_are_its_continuation():
    """Catches a prompt and a text with its answer that are read with different numbers of begin tokens."""
    example = Example(id="q", task="jsonl", question="<s>[INST] 2 + 2 [/INST]", answer="4")
    prepared = TASKS["jsonl"].prepare(example, Tokenizer())
    assert prepared.prompt_ids.count(BEGIN) == 1
    assert [bytes(answer) for answer in prepared.answers] == [b" 4"]

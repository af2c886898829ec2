"""From an example to the text and the tokens that one model reads."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipeline.errors import UserError
from pipeline.tasks import TASKS, Example, TaskOptions, get_task

BEGIN = 1


class Tokenizer:
    """A token a character, behind a begin token; ``merges`` are pairs that become one token."""

    def __init__(self, chat_template=None, merges=()):
        self.chat_template, self.merges = chat_template, merges

    def __call__(self, text, add_special_tokens):
        for merge in self.merges:
            text = text.replace(merge, chr(sum(map(ord, merge))))
        return SimpleNamespace(input_ids=[BEGIN] * add_special_tokens + [ord(character) for character in text])

    def apply_chat_template(self, turns, *, tokenize, add_generation_prompt=False, **variables):
        assert not tokenize
        text = "\x01" + "".join(f"<{turn['role']}>\n{turn['content']}" for turn in turns)
        return text + "<assistant>\n" * add_generation_prompt


def prepared(task, tokenizer, prompt="1 + 1 ="):
    """One question with the answer "B"; a choice task's options are A and B."""
    options = ("A", "B") if task.startswith("arc") else ()
    return TASKS[task].prepare(Example(id="q", task=task, question=prompt, answer="B", options=options), tokenizer)


def tokens(text):
    """A token a character."""
    return [ord(character) for character in text]


@pytest.mark.parametrize(("prompt", "answer"), [("1 + 1 =", " B"), ("1 + 1 = ", "B"), ("1 + 1 =\n", "B")])
def test_an_answer_follows_its_prompt(prompt, answer):
    """Catches an answer glued to its prompt, or behind two spaces: other tokens than the model would write."""
    question = prepared("jsonl", Tokenizer(), prompt)
    assert question.prompt == prompt
    assert question.prompt_ids == [BEGIN, *tokens(prompt)]
    assert question.answers == [tokens(answer)]


def test_a_merge_across_the_border_leaves_the_prompt_alone():
    """Catches an answer's tokens cut out of a text whose prompt was tokenized in another way."""
    question = prepared("jsonl", Tokenizer(merges=["= "]))
    assert question.prompt_ids == [BEGIN, *tokens("1 + 1 =")]
    assert question.answers == [tokens(" B")]


def test_a_chat_template_brings_its_own_special_tokens():
    """Catches a begin token that is doubled, or missing where the model has no template."""
    chat = prepared("arc", Tokenizer(chat_template="yes"))
    assert chat.prompt == "\x01<user>\n1 + 1 =<assistant>\n"
    assert chat.prompt_ids == tokens(chat.prompt) and chat.prompt_ids.count(BEGIN) == 1
    assert chat.answers == [tokens("A"), tokens("B")]
    plain = prepared("arc", Tokenizer())
    assert plain.prompt_ids == [BEGIN, *tokens("1 + 1 =")] and plain.answers == [tokens(" A"), tokens(" B")]


def test_a_text_task_ignores_the_chat_template():
    """Catches a continuation task asked as a chat: its worked examples would be no text to continue."""
    assert prepared("arithmetic", Tokenizer(chat_template="yes")).prompt == "1 + 1 ="


def test_own_prompts_as_a_chat():
    """Catches a system turn that is lost or comes last, and a model without a template that is asked in plain text."""
    example = Example(id="q", task="jsonl", question="1 + 1 =", answer="2")
    asked = get_task("jsonl", options=TaskOptions(chat=True)).prepare(example, Tokenizer(chat_template="yes"))
    assert asked.prompt == "\x01<user>\n1 + 1 =<assistant>\n" and asked.answers == [tokens("2")]
    task = get_task("jsonl", options=TaskOptions(chat=True, system="Be brief."))
    assert task.prepare(example, Tokenizer(chat_template="yes")).prompt == (
        "\x01<system>\nBe brief.<user>\n1 + 1 =<assistant>\n"
    )
    task.check_tokenizer(Tokenizer(chat_template="yes"))
    get_task("arc").check_tokenizer(Tokenizer())
    with pytest.raises(UserError, match="no chat template; leave --chat out"):
        task.check_tokenizer(Tokenizer())

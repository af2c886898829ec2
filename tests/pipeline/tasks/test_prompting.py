"""Prompts from chat templates: the same on any day, without thinking, and with answers as the template puts them."""

from __future__ import annotations

from itertools import product

import pytest
from tiny import byte_tokenizer

from pipeline.tasks import TASKS, Example, get_task
from pipeline.tasks.prompting import Prompting, chat_answer, chat_prompt
from pipeline.tasks.types import DataRequest

TURNS = "{% for m in messages %}<|{{ m.role }}|>GAP{{ m.content }}<|end|>{% endfor %}"
PLAIN = TURNS + "{% if add_generation_prompt %}<|assistant|>GAP{% endif %}"
DATED = "{{ strftime_now('%d %b %Y %H:%M:%S.%f') if strftime_now is defined else 'none' }}\n" + PLAIN
#: As Qwen3 and SmolLM3 have it: thinking unless it is switched off, and then an empty one.
HYBRID = (
    PLAIN[: -len("{% endif %}")]
    + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
#: Opens the thinking whatever it is asked.
ALWAYS = PLAIN[: -len("{% endif %}")] + "<think>\n{% endif %}"

#: A chat of one question.
WHY = [{"role": "user", "content": "Why?"}]


def tokenizer_of(template, gap=""):
    """A tokenizer over bytes with a chat template, in whose turns a gap stands before the content."""
    made = byte_tokenizer()
    made.chat_template = template.replace("GAP", gap)
    return made


def test_a_prompt_has_the_date_of_its_run():
    """Catches prompts, and so labels, that depend on the day or the second."""
    made = tokenizer_of(DATED)
    then = chat_prompt(made, WHY, Prompting(day="2024-07-26"))
    assert then.startswith("26 Jul 2024 00:00:00.000000\n")
    assert chat_prompt(made, WHY, Prompting()) == chat_prompt(made, WHY, Prompting())


@pytest.mark.parametrize(
    ("template", "prompting", "end"),
    [
        (PLAIN, Prompting(), "<|assistant|>"),
        (HYBRID, Prompting(), "<|assistant|><think>\n\n</think>\n\n"),
        (HYBRID, Prompting(thinking=True), "<|assistant|>"),
        (HYBRID, Prompting(version=1), "<|assistant|>"),
        (ALWAYS, Prompting(), "<|assistant|><think>\n\n</think>\n\n"),
        (ALWAYS, Prompting(thinking=True), "<|assistant|><think>\n"),
        (ALWAYS, Prompting(version=1), "<|assistant|><think>\n"),
    ],
)
def test_a_model_is_asked_without_thinking_unless_told(template, prompting, end):
    """Catches letters that are read where the thinking begins, and an old run whose prompts change."""
    assert chat_prompt(tokenizer_of(template), WHY, prompting) == f"<|user|>Why?<|end|>{end}"


@pytest.mark.parametrize(("template", "gap"), product([PLAIN, HYBRID, ALWAYS], ["", " ", "\n"]))
def test_a_letter_follows_as_the_template_writes_it(template, gap):
    """Catches `` A`` scored where the template writes ``A``: another token."""
    made = tokenizer_of(template, gap)
    assert chat_answer(made, WHY, "A", Prompting()) == "A"
    example = Example(id="q", task="arc", question="Why?", answer="A", options=("A", "B"))
    assert [made.decode(answer) for answer in TASKS["arc"].prepare(example, made).answers] == ["A", "B"]


def test_white_space_that_is_not_in_the_prompt_is_the_answers():
    """Catches a letter without the space that a template puts between the turn's mark and its text."""
    made = tokenizer_of(TURNS.replace("GAP", " ") + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    assert chat_answer(made, WHY, "A", Prompting()) == " A"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no') if messages | length > 1 else messages[0].content + ':' }}",
        "{{ messages[0].content }}:",
    ],
)
def test_a_template_without_an_assistants_turn_does_without(template):
    """Catches a traceback, or a run whose every example is set aside, over a template that has no such turn."""
    made = tokenizer_of(template)
    assert chat_answer(made, WHY, "A", Prompting()) is None
    example = Example(id="q", task="arc", question="Why?", answer="A", options=("A", "B"))
    assert [made.decode(answer) for answer in TASKS["arc"].prepare(example, made).answers] == [" A", " B"]


def test_a_prompt_that_is_there_is_not_made_again():
    """Catches a replay whose prompt is another than the row's, because the day or the template is."""
    example = Example(id="q", task="arc", question="Why?", answer="A", options=("A", "B"), prompt="<|user|>Once<|a|>")
    assert TASKS["arc"].prepare(example, tokenizer_of(DATED)).prompt == "<|user|>Once<|a|>"


def test_only_solutions_may_think():
    """Catches letters that are read out of a thought."""
    assert get_task("gsm8k", prompting=Prompting(thinking=True)).prompting.thinking
    for task in ("arc", "arithmetic", "jsonl"):
        with pytest.raises(ValueError, match="leave --thinking out"):
            get_task(task, prompting=Prompting(thinking=True))


@pytest.mark.parametrize("task", ["gsm8k", "dart-math"])
def test_no_wording_shows_a_box_that_can_be_copied(task, tmp_path):
    r"""Catches a prompt whose ``\boxed{answer}`` small models write down as their answer, and old runs' words lost."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "What is 1 + 1?", "answer": "#### 2"}\n')
    for version, copied in ((1, True), (2, False)):
        [example] = TASKS[task].read(DataRequest(data=str(file), renderings=4, prompt_version=version))
        texts = [example.question, *(rendering.question for rendering in example.renderings)]
        assert len(set(texts)) == 4 and all("\\boxed{" in text for text in texts)
        assert any("boxed{answer}" in text for text in texts) == copied

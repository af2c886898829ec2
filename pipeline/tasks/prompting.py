"""The exact text of a prompt: one date, no thinking unless told, and answers as the chat template puts them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

#: Version of the prompts' wordings: a run keeps the one that it began with. 1: prompts ask for ``\\boxed{answer}``,
#: which small models copy, and a chat template thinks or not as it likes. 2: neither.
PROMPT_VERSION = 2
#: Directives of ``strftime``, the longer forms first.
_DIRECTIVES = ("-d", "-m", "-I", "-H", "-y", *"aAdbBmyYHIMSfpjcxXwuUWGVeDFT")
_OPEN_THINKING, _CLOSED_THINKING = "<think>", "\n\n</think>\n\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompting:
    """The settings of a run's prompts.

    Attributes:
        version: See ``PROMPT_VERSION``.
        thinking: Whether the model thinks before it answers, where its chat template knows how.
        day: The date that a chat template writes, as ``2026-11-30``; None for today. A run has one date, so that its
            prompts are the same on any day.
    """

    version: int = PROMPT_VERSION
    thinking: bool = False
    day: str | None = None


def chat_prompt(tokenizer: Any, turns: list[dict[str, str]], prompting: Prompting) -> str:
    """Turns in the chat template, up to where the assistant's turn begins.

    A template that opens the thinking by itself is answered by closing it, unless the model is to think.

    Args:
        tokenizer: A tokenizer of transformers with a chat template.
        turns: The user's turn, behind a system's turn if there is one; each has a ``role`` and a ``content``.
        prompting: The settings of the prompt.
    """
    prompt = _rendered(tokenizer, turns, prompting, add_generation_prompt=True)
    thinks = prompt.rstrip().endswith(_OPEN_THINKING)
    if thinks and not prompting.thinking and prompting.version > 1:
        return prompt.rstrip() + _CLOSED_THINKING
    return prompt


def chat_answer(tokenizer: Any, turns: list[dict[str, str]], answer: str, prompting: Prompting) -> str | None:
    """The answer as it follows the prompt in the assistant's turn, with the white space that the template puts there.

    Returns:
        The white space and the answer; None where the template's own turn does not show the answer.
    """
    try:
        prompt = _rendered(tokenizer, turns, prompting, add_generation_prompt=True)
        whole = _rendered(tokenizer, [*turns, {"role": "assistant", "content": answer}], prompting)
    except Exception:  # a template is code from outside, and may refuse a turn
        return None
    differs = (index for index, pair in enumerate(zip(prompt, whole)) if pair[0] != pair[1])
    behind = whole[next(differs, min(len(prompt), len(whole))) :]
    space = behind[: len(behind) - len(behind.lstrip())]
    return space + answer if behind.lstrip().startswith(answer) else None


def is_day(value: object) -> bool:
    """Whether a value is a date as ``Prompting.day`` has it."""
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def today() -> str:
    """Today's date, as ``Prompting.day`` has it."""
    return date.today().isoformat()


def _rendered(tokenizer: Any, turns: list[dict[str, str]], prompting: Prompting, **options: Any) -> str:
    template = tokenizer.chat_template
    if not isinstance(template, str):  # several by name
        template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        options["chat_template"] = _with_day(template, prompting.day or today())
    # A variable of some templates; others ignore it.
    if prompting.version > 1:
        options["enable_thinking"] = prompting.thinking
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, **options)
    return text


def _with_day(template: str, day: str) -> str:
    """The template with a clock of its own, which stands at the beginning of a day.

    transformers gives templates a function ``strftime_now``, and takes none from its caller; a macro goes before it.
    """
    moment = datetime.fromisoformat(day)
    values = {f"%{letter}": moment.strftime(f"%{letter}") for letter in _DIRECTIVES}
    replaced = "".join(f" | replace({form!r}, {value!r})" for form, value in {**values, "%%": "%"}.items())
    # The plus keeps a line end with which the template begins.
    return f"{{% macro strftime_now(form) %}}{{{{ form{replaced} }}}}{{% endmacro +%}}{template}"

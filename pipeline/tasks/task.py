"""The parts of a task: a reader of examples, a way to prompt, and a scoring.

data --read--> Example --prepare--> PreparedExample --score with a program--> Outcome
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.tasks.prompting import Prompting, chat_answer, chat_prompt
from pipeline.tasks.renderings import score_renderings
from pipeline.tasks.scoring.graded import Graded
from pipeline.tasks.scoring.matched_line import MatchedLine
from pipeline.tasks.tokens import tokens_of
from pipeline.tasks.types import DataRequest, Example, Outcome, PreparedExample, Runner, Scoring


@dataclass(frozen=True, kw_only=True)
class Task:
    """A family of examples, with their prompts and their scoring.

    Attributes:
        name: Name of the task, as ``--task`` takes it.
        summary: One line for ``--help``.
        read: Reads or makes the examples of a request.
        scoring: The scoring of the answers.
        chat: Whether the example's text is a user's turn in the model's chat template; otherwise the model continues
            it as text.
        needs_data: Whether ``--data`` must be given.
        hub_data: The data set on the hub, for messages; None where there is none to name.
        most_renderings: Most renderings of an example; None where this differs between examples.
        prompting: The settings of the prompts.
        system: The system's turn before the user's; None for none.
        needs_chat_template: Whether a model without a chat template is refused, instead of continuing the text.

    Raises:
        ValueError: ``scoring`` is no scoring.
    """

    name: str
    summary: str
    read: Callable[[DataRequest], list[Example]]
    scoring: Scoring
    chat: bool
    needs_data: bool = True
    hub_data: str | None = None
    most_renderings: int | None = None
    prompting: Prompting = field(default_factory=Prompting)
    system: str | None = None
    needs_chat_template: bool = False

    def __post_init__(self) -> None:
        if not hasattr(self.scoring, "score") or isinstance(self.scoring, type):
            raise ValueError(
                f"scoring must be an object such as Choice(per_character=False) or ExactMatch(max_new_tokens=32), "
                f"got {self.scoring!r}"
            )

    @property
    def writes_solutions(self) -> bool:
        """Whether an answer is a written solution, and not a letter, an option or a line."""
        return isinstance(self.scoring, Graded)

    @property
    def may_think(self) -> bool:
        """Whether the model may think before its answer: it answers a chat with a solution."""
        return self.chat and self.writes_solutions

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a model whose tokenizer has no chat template, if the task needs one.

        Raises:
            UserError: There is none.
        """
        if self.needs_chat_template and tokenizer.chat_template is None:
            raise UserError(
                "the model has no chat template; leave --chat out, or give a model that was tuned for chats"
            )

    def prepare(self, example: Example, tokenizer: Any) -> PreparedExample:
        """Render and tokenize one example, in all its renderings, for one model."""
        others = [
            replace(example, question=other.question, answer=other.answer, renderings=(), prompt=None)
            for other in example.renderings
        ]
        first = self._prepare(example, tokenizer)
        return replace(first, renderings=[self._prepare(other, tokenizer) for other in others]) if others else first

    def prompt(self, example: Example, tokenizer: Any) -> str:
        """The exact text of an example's prompt, in its first rendering."""
        if example.prompt is not None:
            return example.prompt
        if self._is_chat(tokenizer):
            return chat_prompt(tokenizer, self._turns(example), self.prompting)
        return example.question

    def tokens(self, prepared: PreparedExample) -> int:
        """Largest number of tokens that a model has to read and write for one rendering of an example."""
        return max(len(one.prompt_ids) + self.scoring.room(one) for one in (prepared, *prepared.renderings))

    def reference_fits(self, prepared: PreparedExample) -> bool:
        """Whether a reference answer, with the token that ends it, can be written within the task's limit."""
        scoring = self.scoring
        return not isinstance(scoring, MatchedLine) or all(
            len(tokens) < scoring.max_new_tokens for tokens in prepared.answers
        )

    def score(
        self,
        model: Runner,
        examples: Sequence[PreparedExample],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        """Score each example under its program, in all its renderings; see ``renderings`` and ``scoring``."""
        return score_renderings(self.scoring, model, examples, programs, need_response=need_response)

    def _prepare(self, example: Example, tokenizer: Any) -> PreparedExample:
        chat, prompt = self._is_chat(tokenizer), self.prompt(example, tokenizer)
        # A chat template writes the special tokens itself; adding them again would double the first.
        prompt_ids = tokens_of(tokenizer, prompt, add_special_tokens=not chat)
        answers = []
        for text in self.scoring.targets(example):
            # A run of prompt version 1 goes on as it began, with a space where the prompt ends without one.
            as_written = chat and self.prompting.version > 1
            put = chat_answer(tokenizer, self._turns(example), text, self.prompting) if as_written else None
            if put is None:
                put = text if prompt[-1:].isspace() else f" {text}"
            answers.append(_continuation(tokenizer, prompt, prompt_ids, put, add_special_tokens=not chat))
        return PreparedExample(example=example, prompt=prompt, prompt_ids=prompt_ids, answers=answers)

    def _is_chat(self, tokenizer: Any) -> bool:
        """Whether prompts are a chat: the task asks for one, and the model has a template."""
        return self.chat and tokenizer.chat_template is not None

    def _turns(self, example: Example) -> list[dict[str, str]]:
        """The turns of the chat before the assistant's."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": example.question}]


def _continuation(
    tokenizer: Any, prompt: str, prompt_ids: list[int], text: str, *, add_special_tokens: bool
) -> list[int]:
    """The tokens of ``text`` behind the prompt."""
    whole = tokens_of(tokenizer, prompt + text, add_special_tokens=add_special_tokens)
    if whole[: len(prompt_ids)] == prompt_ids and len(whole) > len(prompt_ids):
        return whole[len(prompt_ids) :]
    # The tokenizer merges across the border; the answer alone is what the model would have to write.
    return tokens_of(tokenizer, text, add_special_tokens=False)

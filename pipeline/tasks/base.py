"""What a task is made of: a reader of examples, a way to prompt, and a scoring.

data --read--> Example --prepare--> Question --score with a program--> Outcome
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.program import LayerProgram
from pipeline.tasks.renderings import score_renderings

if TYPE_CHECKING:
    import torch

    from pipeline.engine.decoding import Decoded


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """Another way to ask an example: in other words, or with its options in another order.

    Attributes:
        question: What the model is told.
        answer: The reference answer to that.
    """

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One question with its reference answer, before any model is known.

    Attributes:
        id: Unique in a run and the same in every run over the same data.
        task: Name of the task.
        question: What the model is told: the user's turn of a chat, or the text to continue.
        answer: The reference answer; one of ``options`` where there are any.
        options: The answers that the model chooses among; empty where it writes freely.
        renderings: Other ways to ask it, all of which must be answered right too.
    """

    id: str
    task: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    renderings: tuple[Rendering, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it; what runs of earlier releases did not know is left out where it says nothing."""
        fields = asdict(self)
        if not self.renderings:
            del fields["renderings"]
        return fields


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """Which examples are wanted.

    Attributes:
        data: A file, a folder or a hub data set (``owner/name`` or ``owner/name:config``); None for a
            task that makes its own questions.
        split: Split of a hub data set or of a made task.
        limit: At most this many, in the data's order; None for all.
        seed: For a task that makes its own questions.
        renderings: In how many ways each is asked, the first one included.
    """

    data: str | None = None
    split: str = "train"
    limit: int | None = None
    seed: int = 0
    renderings: int = 1

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        if self.renderings < 1:
            raise ValueError(f"renderings must be at least 1, got {self.renderings}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """An example as one model reads it.

    Attributes:
        example: The example.
        prompt: The exact text given to the tokenizer, chat template applied.
        prompt_ids: Its tokens.
        answers: Tokens of each option, or of the one reference answer, as they follow the prompt.
        renderings: The example's other renderings, likewise.
    """

    example: Example
    prompt: str
    prompt_ids: list[int]
    answers: list[list[int]]
    renderings: list[Question] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a program made of a question.

    Attributes:
        correct: The reward: right, under all of the question's renderings.
        margin: How far the verdict is from turning: positive where right, negative where wrong.
        response: What the program answered; None where the verdict needed no reading to the end.
        layer_executions: Layers that the program asks for, once a row and pass, shared or not.
        correct_as_asked: Whether the answer to the question as it stands is right; None where it is asked in no other
            way.
    """

    correct: bool
    margin: float
    response: str | None
    layer_executions: int
    correct_as_asked: bool | None = None

    @property
    def verdicts(self) -> tuple[bool, bool | None]:
        """Both of them: under all renderings, and as asked."""
        return self.correct, self.correct_as_asked


class Runner(Protocol):
    """What scoring asks of whoever runs programs; see ``pipeline.engine.FrozenModel`` and ``Oracle``."""

    tokenizer: Any

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generated text."""
        ...

    def reads_alike(self, length: int, longer: int) -> bool:
        """Whether a text of so many tokens is read in a longer one as it is read alone."""
        ...

    def logits(
        self,
        token_ids: Sequence[Sequence[int]],
        programs: Sequence[LayerProgram],
        *,
        starts: Sequence[int] | None = None,
    ) -> list[torch.Tensor]:
        """Logits of each row under its program."""
        ...

    def decode(
        self,
        token_ids: Sequence[Sequence[int]],
        programs: Sequence[LayerProgram],
        *,
        max_new_tokens: int,
        stop: Callable[[int, list[int]], bool] | None = None,
        begun: Sequence[Sequence[int]] | None = None,
    ) -> list[Decoded]:
        """Greedy decoding of each row under its program."""
        ...


class Scoring(Protocol):
    """How answers to one kind of question are judged."""

    @property
    def margins_compare(self) -> bool:
        """Whether a wrong answer's margin says how near it is to the reference."""
        ...

    @property
    def leaves(self) -> int:
        """Programs of one question that are best tried at once: more fill a batch, fewer learn sooner."""
        ...

    def room(self, question: Question) -> int:
        """Most tokens that are read or written behind the question's prompt."""
        ...

    def targets(self, example: Example) -> Sequence[str]:
        """The texts whose tokens a question carries as ``answers``."""
        ...

    def score(
        self,
        model: Runner,
        questions: Sequence[Question],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        """Judge each question under its program, in as few model calls as the kind allows."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """A family of questions.

    Attributes:
        name: What ``--task`` takes.
        summary: One line for ``--help``.
        read: From a request to examples.
        scoring: How answers are judged.
        chat: Whether the question is a user's turn in the model's chat template; otherwise the model
            continues it as text.
        needs_data: Whether ``--data`` must be given.
        hub_data: Where the data is on the hub, for messages.
        most_renderings: In how many ways its questions can be asked; None where each question says so.
    """

    name: str
    summary: str
    read: Callable[[DataRequest], list[Example]]
    scoring: Scoring
    chat: bool
    needs_data: bool = True
    hub_data: str | None = None
    most_renderings: int | None = None

    def prepare(self, example: Example, tokenizer: Any) -> Question:
        """Render and tokenize one example, in all its renderings, for one model."""
        others = [
            replace(example, question=other.question, answer=other.answer, renderings=())
            for other in example.renderings
        ]
        asked = self._prepare(example, tokenizer)
        return replace(asked, renderings=[self._prepare(other, tokenizer) for other in others]) if others else asked

    def tokens(self, question: Question) -> int:
        """Most tokens that a model has to read and write for a question."""
        return max(len(one.prompt_ids) + self.scoring.room(one) for one in (question, *question.renderings))

    def score(
        self, model: Runner, questions: Sequence[Question], programs: Sequence[LayerProgram], *, need_response: bool
    ) -> list[Outcome]:
        """Judge each question under its program, in all its renderings; see ``renderings`` and ``scoring``."""
        return score_renderings(self.scoring, model, questions, programs, need_response=need_response)

    def _prepare(self, example: Example, tokenizer: Any) -> Question:
        chat = self.chat and tokenizer.chat_template is not None
        prompt = example.question
        if chat:
            turns = [{"role": "user", "content": example.question}]
            prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # A chat template writes the special tokens itself; adding them again would double the first.
        prompt_ids = tokenizer(prompt, add_special_tokens=not chat).input_ids
        answers = [
            _continuation(tokenizer, prompt, prompt_ids, text, add_special_tokens=not chat)
            for text in self.scoring.targets(example)
        ]
        return Question(example=example, prompt=prompt, prompt_ids=prompt_ids, answers=answers)


def _continuation(
    tokenizer: Any, prompt: str, prompt_ids: list[int], text: str, *, add_special_tokens: bool
) -> list[int]:
    """Tokens of ``text`` where it follows the prompt."""
    text = text if prompt[-1:].isspace() else f" {text}"
    whole: list[int] = tokenizer(prompt + text, add_special_tokens=add_special_tokens).input_ids
    if whole[: len(prompt_ids)] == prompt_ids and len(whole) > len(prompt_ids):
        return whole[len(prompt_ids) :]
    # The tokenizer merges across the border; the answer alone is what the model would have to write.
    alone: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return alone

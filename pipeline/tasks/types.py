"""What passes between tasks, searches and engines: examples, as read and as prepared, outcomes, and scorings.

data --read--> Example --prepare--> PreparedExample --score with a program--> Outcome
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.program import LayerProgram

if TYPE_CHECKING:
    import torch

    from pipeline.engine.greedy_decoding import Decoded


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
class PreparedExample:
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
    renderings: list[PreparedExample] = field(default_factory=list)

    @property
    def example_id(self) -> str:
        """The example's id."""
        return self.example.id


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a program on an example.

    Attributes:
        correct: The reward: right, under all of the question's renderings.
        margin: How far the logits are from the opposite result: positive where right, negative where wrong.
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
        """Whether the answers under all renderings are right, and whether the one as asked is."""
        return self.correct, self.correct_as_asked


class Runner(Protocol):
    """What a scoring needs of the model that runs programs; see ``pipeline.engine.FrozenModel`` and ``StockRunner``."""

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
    """How answers of one kind are scored."""

    @property
    def generates(self) -> bool:
        """Whether the model writes an answer, so that there is a limit on its tokens."""
        ...

    @property
    def answers_compare(self) -> bool:
        """Whether two answers that mean the same are the same text, so that programs can vote on them."""
        ...

    @property
    def margins_compare(self) -> bool:
        """Whether a wrong answer's margin says how near it is to the reference."""
        ...

    @property
    def leaves(self) -> int:
        """Programs of one example that are best proposed at once: more fill a batch, fewer learn sooner."""
        ...

    def with_max_new_tokens(self, number: int) -> Scoring:
        """The same scoring with another limit on the tokens of an answer; called where ``generates`` only."""
        ...

    def room(self, prepared: PreparedExample) -> int:
        """Most tokens that are read or written behind an example's prompt."""
        ...

    def targets(self, example: Example) -> Sequence[str]:
        """The texts whose tokens a prepared example carries as ``answers``."""
        ...

    def score(
        self,
        model: Runner,
        examples: Sequence[PreparedExample],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        """Score the answer of each program to the example at its position, in as few model calls as the kind allows.

        Args:
            model: Runs programs.
            examples: The examples.
            programs: One program for each.
            need_response: Whether wrong answers too are written to their end.

        Returns:
            One outcome for each.
        """
        ...

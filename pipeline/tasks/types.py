"""The types that tasks, searches and engines exchange: examples, as read and as prepared, outcomes, and scorings.

data --read--> Example --prepare--> PreparedExample --score with a program--> Outcome
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from pipeline.program import LayerProgram
from pipeline.tasks.prompting import PROMPT_VERSION

if TYPE_CHECKING:
    import torch

    from pipeline.engine.greedy_decoding import Decoded

#: Why an answer is right or wrong. ``ended``: it is right, and the model ended it. ``no final answer``: a solution
#: ended without stating one. ``cut``: the limit on its tokens cut it before it was an answer. ``unequal``: it is
#: another answer than the reference. ``tie``: two answers have equal logits, and the vocabulary's order alone would
#: choose.
#: ``ungradable``: the logits are not numbers, or the grader cannot read the answer or takes too long.
Reason: TypeAlias = Literal["ended", "no final answer", "cut", "unequal", "tie", "ungradable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendering:
    """Another way to put an example: in other words, or with its options in another order.

    Attributes:
        question: The text for the model: the user's turn of a chat, or the text to continue.
        answer: The reference answer to this rendering.
    """

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """An example with its reference answer, before any model is known.

    Attributes:
        id: Unique in a run and the same in every run over the same data.
        task: Name of the task.
        question: The text for the model: the user's turn of a chat, or the text to continue.
        answer: The reference answer; one of ``options`` where there are any.
        options: The answers that the model chooses among; empty where it writes freely.
        renderings: The example's other renderings, all of which must be answered right too.
        prompt: The exact prompt, where a run has it already; None where it is made from ``question``.
        also_accepted: Other answers that are right too.
    """

    id: str
    task: str
    question: str
    answer: str
    options: tuple[str, ...] = ()
    renderings: tuple[Rendering, ...] = ()
    prompt: str | None = None
    also_accepted: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """All accepted answers, the reference answer first."""
        return (self.answer, *self.also_accepted)

    def to_json(self) -> dict[str, Any]:
        """The example as JSON; fields that earlier releases had not are left out where they are empty."""
        fields = asdict(self)
        for name in ("renderings", "prompt", "also_accepted"):
            if not fields[name]:
                del fields[name]
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Example:
        """The example that ``to_json`` gave.

        Raises:
            KeyError, TypeError: It is none.
        """
        prompt = fields.get("prompt")
        return cls(
            id=str(fields["id"]),
            task=str(fields["task"]),
            question=str(fields["question"]),
            answer=str(fields["answer"]),
            options=tuple(map(str, fields.get("options", ()))),
            renderings=tuple(Rendering(**one) for one in fields.get("renderings", ())),
            prompt=None if prompt is None else str(prompt),
            also_accepted=tuple(map(str, fields.get("also_accepted", ()))),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRequest:
    """The examples that a task shall read or make.

    Attributes:
        data: A file, a folder or a hub data set (``owner/name`` or ``owner/name:config``); None for a
            task that makes its own examples.
        split: Split of a hub data set, of a folder whose files' names show splits, or of a task that makes its own
            examples.
        limit: Largest number of examples, in the data's order; None for all, or for the default of a task that makes
            its own examples.
        seed: Seed of a task that makes its own examples.
        renderings: Number of renderings of each example, the first one included.
        prompt_version: Version of the prompts' wordings; see ``pipeline.tasks.prompting``.
    """

    data: str | None = None
    split: str = "train"
    limit: int | None = None
    seed: int = 0
    renderings: int = 1
    prompt_version: int = PROMPT_VERSION

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
        prompt_ids: The tokens of the prompt.
        answers: Tokens of each option, or of the one reference answer, as they follow the prompt.
        renderings: The example's other renderings, prepared likewise.
    """

    example: Example
    prompt: str
    prompt_ids: list[int]
    answers: list[list[int]]
    renderings: list[PreparedExample] = field(default_factory=list)

    @property
    def example_id(self) -> str:
        """Id of the example, unique in a run."""
        return self.example.id


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of a program on an example.

    Attributes:
        correct: Whether the answers under all of the example's renderings are right.
        reason: Why the answer is right or wrong; of the first wrong rendering, where there are several.
        margin: Distance of the logits from the opposite result: positive where right, negative where wrong.
        response: The program's answer; None where the verdict did not need it in full.
        layer_executions: The program's layers, counted for each row and forward pass, whether rows share them or not.
        correct_as_asked: Whether the answer in the first rendering is right; None where the example has no other
            renderings.
    """

    correct: bool
    reason: Reason
    margin: float
    response: str | None
    layer_executions: int
    correct_as_asked: bool | None = None

    @property
    def verdicts(self) -> tuple[bool, bool | None]:
        """The pair of ``correct`` and ``correct_as_asked``."""
        return self.correct, self.correct_as_asked


class Runner(Protocol):
    """A model that runs programs, as scorings see it: ``pipeline.engine.FrozenModel`` or ``StockRunner``."""

    tokenizer: Any

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generated text."""
        ...

    def reads_alike(self, length: int, longer: int) -> bool:
        """Whether the first ``length`` tokens of a text of ``longer`` tokens get the states that they get alone."""
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
    """The scoring of answers of one kind."""

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
        """Best number of programs to propose at once for one example: more fill a batch, fewer use results sooner."""
        ...

    def with_max_new_tokens(self, number: int) -> Scoring:
        """A copy with another limit on the tokens of an answer; called only if ``generates`` is true."""
        ...

    def room(self, prepared: PreparedExample) -> int:
        """Largest number of tokens that are read or written behind an example's prompt."""
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
            model: The model that runs the programs.
            examples: The examples.
            programs: One program for each example.
            need_response: Whether wrong answers too are written to their end.

        Returns:
            One outcome for each example.
        """
        ...

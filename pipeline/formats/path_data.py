"""The content that all formats share: examples, and the programs that were right or wrong on them.

Programs and examples that cannot be taken over are counted by the reason, so that none is dropped silently.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath, without_secrets
from pipeline.tasks.rows import as_text, flaw_of

#: The largest depth that a shard's columns can hold.
_DEEPEST = 32767
#: The reason to leave out an example without the base model's result: programs are compared with it.
NO_BASELINE = "example without a result of the base model"


@dataclass(frozen=True, kw_only=True, slots=True)
class TriedProgram:
    """The verdict on one program.

    Attributes:
        program: The program.
        correct: Whether the program's answer is right.
        score: The margin; NaN where a format has none.
        response: The program's answer; None where a format does not have it.
    """

    program: LayerProgram
    correct: bool
    score: float = math.nan
    response: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchedExample:
    """An example with all verdicts on it.

    Attributes:
        example_id: Id of the example.
        task: Name of its task.
        prompt: The text of the prompt.
        answer: The reference answer.
        tried: The verdicts, one for each program; the identity program is among them.
    """

    example_id: str
    task: str
    prompt: str
    answer: str
    tried: tuple[TriedProgram, ...]


@dataclass(kw_only=True)
class PathData:
    """Examples from one source.

    Attributes:
        num_layers: Depth L of the model.
        model: Name of the model; None where the source does not say.
        revision: Revision of its weights; None where the source does not say.
        dtype: The precision in which the model was searched; None where the source does not say.
        budget: The longest acceptable program, as a fraction of L; None where the source has no bound.
        add_special_tokens: Whether the tokenizer adds its special tokens to the prompts; None where the source does not
            say.
        examples: The examples, each with its verdicts.
        left_out: Number of programs and examples that could not be taken over, by the reason.
    """

    num_layers: int
    model: str | None = None
    revision: str | None = None
    dtype: str | None = None
    budget: float | None = None
    add_special_tokens: bool | None = None
    examples: list[SearchedExample] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _names: Counter[str] = field(default_factory=Counter, repr=False)

    def add(
        self,
        *,
        example_id: str,
        task: str,
        prompt: str,
        answer: str,
        baseline_correct: bool | None,
        verdicts: Iterable[tuple[Any, bool, float]],
    ) -> None:
        """Take over an example from a file.

        Args:
            example_id: Id of the example; an id that is taken gets a number.
            task: Name of its task.
            prompt: The text of the prompt.
            answer: The reference answer.
            baseline_correct: Whether the base model is right; None where the file does not say.
            verdicts: Programs as the file has them, each with whether it is right and its margin.
        """
        if any(map(flaw_of, (example_id, task, prompt, answer))):
            self.left_out["example with a text that is too long, no Unicode, or hides characters"] += 1
            return
        identity = LayerProgram.identity(self.num_layers)
        tried: dict[LayerProgram, TriedProgram] = {}
        for layers, correct, score in verdicts:
            program = self._program(layers)
            if program is None:
                continue
            if program in tried:
                same = tried[program].correct == correct
                self.left_out["program given twice" if same else "program given as right and as wrong"] += 1
                continue
            tried[program] = TriedProgram(program=program, correct=correct, score=score)
        if identity not in tried:
            if baseline_correct is None:
                self.left_out[NO_BASELINE] += 1
                return
            tried[identity] = TriedProgram(program=identity, correct=baseline_correct)
        elif baseline_correct not in (None, tried[identity].correct):
            self.left_out["score of the base model that its program contradicts"] += 1
        self._names[example_id] += 1
        if self._names[example_id] > 1:
            example_id = f"{example_id}#{self._names[example_id]}"
        self.examples.append(
            SearchedExample(example_id=example_id, task=task, prompt=prompt, answer=answer, tried=tuple(tried.values()))
        )

    def _program(self, layers: Any) -> LayerProgram | None:
        if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
            self.left_out["program that is not a list of layer numbers"] += 1
            return None
        if not layers:
            self.left_out["program that runs no layer"] += 1
            return None
        try:
            return LayerProgram(layers, self.num_layers)
        except ValueError:
            self.left_out[f"program with a layer outside the model's {self.num_layers}"] += 1
            return None


def depth_of(programs: Iterable[Any], given: int | None, file: AnyPath) -> int:
    """The model's depth: the given one, or else one more than the deepest layer that a program runs.

    Raises:
        UserError: The depth is out of range, or no program shows it.
    """
    name = without_secrets(file)
    if given is not None:
        if not 1 <= given <= _DEEPEST:
            raise UserError(f"--num-layers must be at least 1 and at most {_DEEPEST}, got {given}")
        return given
    deepest = max(
        (layer for layers in programs if isinstance(layers, list) for layer in layers if type(layer) is int), default=-1
    )
    if deepest < 0:
        raise UserError(f"{name} has no program that shows the model's depth; give it with --num-layers")
    if deepest >= _DEEPEST:
        raise UserError(
            f"{name} has a program with layer {deepest}, which no model has; give its depth with --num-layers"
        )
    return deepest + 1


def budget_of(value: Any, file: AnyPath) -> float | None:
    """The budget that a file states; None for no bound.

    Raises:
        UserError: The value is not a number above 0.
    """
    if value is None:
        return None
    try:
        budget = float(value)
    except (TypeError, ValueError, OverflowError):
        budget = math.nan
    if not 0 < budget < math.inf:
        raise UserError(f"{without_secrets(file)} holds a budget that is not a number above 0: {value!r}")
    return budget


def text_of(sample: dict[str, Any], *names: str) -> str | None:
    """The first of the named fields that holds a text or a number, as text; ``a.b`` looks into an object."""
    for name in names:
        value: Any = sample
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        text = as_text(value)
        if text is not None:
            return text
    return None


def list_of(sample: dict[str, Any], name: str) -> Sequence[Any]:
    """The list in a field; an empty one where the field holds none."""
    value = sample.get(name)
    return value if isinstance(value, list) else []

"""The baselines: three plain ways to run a search's programs, written from their published descriptions.

Each has ``prepare``, which need not be timed, and ``score``, which takes examples with their programs and gives
outcomes. The owner of the process sets the number of threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

import torch

from benchmarks.stock import StockEngine, StockModels
from pipeline.engine import FrozenModel
from pipeline.program import LayerProgram
from pipeline.tasks import Outcome, PreparedExample, Task
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.scoring.graded import Graded

#: New tokens for a letter: the released search reads it out of a short text.
LETTER_TOKENS = 10


class Baseline(Protocol):
    """A way to run programs on examples."""

    def __init__(self, model: FrozenModel, task: Task) -> None: ...

    def prepare(self, programs: Iterable[LayerProgram]) -> None:
        """Make the stock models of the programs."""
        ...

    def score(self, examples: Sequence[PreparedExample], programs: Sequence[LayerProgram]) -> list[Outcome]:
        """Score each example under its program."""
        ...


class Released:
    """Dr.LLM's released search: each program writes its answer alone, to the last token; the text is read.

    It has no margins: the margin of every outcome is 0.

    Args:
        model: The frozen model.
        task: The task of the examples.
    """

    def __init__(self, model: FrozenModel, task: Task) -> None:
        self._model = model
        self._scoring = task.scoring
        self._stocks = StockModels(model)
        scoring = task.scoring
        self.max_new_tokens = scoring.max_new_tokens if isinstance(scoring, ExactMatch | Graded) else LETTER_TOKENS

    def prepare(self, programs: Iterable[LayerProgram]) -> None:
        for program in programs:
            self._stocks.of(program)

    @torch.inference_mode()
    def score(self, examples: Sequence[PreparedExample], programs: Sequence[LayerProgram]) -> list[Outcome]:
        return [self._run(prepared, program) for prepared, program in zip(examples, programs)]

    def _run(self, prepared: PreparedExample, program: LayerProgram) -> Outcome:
        ids = torch.tensor([prepared.prompt_ids], device=self._model.device)
        written = self._stocks.of(program).generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=min(self._model.end_tokens, default=0),
        )[0, ids.shape[1] :]
        text = self._model.tokenizer.decode(written, skip_special_tokens=True)
        right = self._right(text, prepared, ended=not self._model.end_tokens.isdisjoint(written.tolist()[-1:]))
        return Outcome(
            correct=right,
            reason="ended" if right else "unequal",
            margin=0.0,
            response=text,
            layer_executions=len(program) * len(written),
        )

    def _right(self, text: str, prepared: PreparedExample, *, ended: bool) -> bool:
        answer = prepared.example.answer
        if isinstance(self._scoring, Choice):
            letter = re.search(rf"\b({'|'.join(map(re.escape, prepared.example.options))})\b", text)
            return letter is not None and letter[0] == answer
        if isinstance(self._scoring, Graded):
            return self._scoring.grader.equal(text, answer, ended=ended)
        return text.lstrip(" ").partition("\n")[0].strip() == answer


class SinglePass:
    """One program at a time, by the task's own scoring: one forward pass if it decides the result.

    Args:
        model: The frozen model.
        task: The task of the examples.
    """

    batched = False

    def __init__(self, model: FrozenModel, task: Task) -> None:
        self._scoring = task.scoring
        self._stocks = StockModels(model)
        # It has all attributes of a model that a scoring uses.
        self._engine = cast(FrozenModel, StockEngine(model, self._stocks, batched=self.batched))

    def prepare(self, programs: Iterable[LayerProgram]) -> None:
        for program in programs:
            self._stocks.of(program)

    def score(self, examples: Sequence[PreparedExample], programs: Sequence[LayerProgram]) -> list[Outcome]:
        return self._scoring.score(self._engine, examples, programs, need_response=False)


class ProgramMajor(SinglePass):
    """Examples with the same program share a padded batch: the best published replication."""

    batched = True

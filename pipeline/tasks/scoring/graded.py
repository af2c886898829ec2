"""Graded: the model writes a solution, and a mathematics grader compares its final answer with the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.program import LayerProgram
from pipeline.tasks.math_grader import MathGrader
from pipeline.tasks.scoring.margins import MANY_LEAVES
from pipeline.tasks.types import Example, Outcome, PreparedExample, Runner

# A boxed answer that is closed, with up to one level of braces inside.
_FINAL_ANSWER = re.compile(r"\\boxed\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
_ANSWER_TOKENS = 64


@dataclass(frozen=True)
class Graded:
    r"""The model writes its solution, and math-verify compares the final answer with the reference.

    Attributes:
        max_new_tokens: Most tokens of a solution.
        grader: Compares a solution with the reference, in a process of its own.

    A solution ends where its ``\boxed{…}`` closes. The margin is the smallest gap on
    the way between a chosen token and the runner-up, negative where the answer is wrong: how far the
    logits are from another text.
    """

    max_new_tokens: int
    grader: MathGrader = field(default_factory=MathGrader, compare=False)

    # Facts of the kind, not fields; see ``Scoring``.
    generates = True
    answers_compare = False
    margins_compare = False  # the gap of a wrong text says how near another text is, not how near the reference
    leaves = MANY_LEAVES

    def with_max_new_tokens(self, number: int) -> Graded:
        return replace(self, max_new_tokens=number)

    def room(self, prepared: PreparedExample) -> int:
        return self.max_new_tokens

    def targets(self, example: Example) -> Sequence[str]:
        return ()

    def score(
        self,
        model: Runner,
        examples: Sequence[PreparedExample],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        decoded = model.decode(
            [prepared.prompt_ids for prepared in examples],
            programs,
            max_new_tokens=self.max_new_tokens,
            stop=lambda row, tokens: _has_final_answer(model.tokenizer.decode(tokens[-_ANSWER_TOKENS:])),
        )
        outcomes = []
        for prepared, program, row in zip(examples, programs, decoded):
            response = model.tokenizer.decode(row.tokens, skip_special_tokens=True).strip()
            correct = self.grader.equal(response, prepared.example.answer)
            outcomes.append(
                Outcome(
                    correct=correct,
                    margin=row.gap if correct else -row.gap,
                    response=response,
                    layer_executions=len(program) * row.passes,
                )
            )
        return outcomes


def _has_final_answer(text: str) -> bool:
    return _FINAL_ANSWER.search(text) is not None

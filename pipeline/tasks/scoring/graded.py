"""Graded: the model writes a solution, and a mathematics grader compares its final answer with the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.program import LayerProgram
from pipeline.tasks.scoring.final_answer import ends_with_box, final_answer
from pipeline.tasks.scoring.margins import MANY_LEAVES
from pipeline.tasks.scoring.math_grader import MathGrader
from pipeline.tasks.types import Example, Outcome, PreparedExample, Reason, Runner

#: The newest tokens, in which a box without braces (``\\boxed 5``) begins and ends.
_BARE_BOX_TOKENS = 12
_OPEN_THINKING = "<think>"


@dataclass(frozen=True)
class Graded:
    r"""The model writes its solution, and math-verify compares the final answer with the reference.

    Attributes:
        max_new_tokens: Most tokens of a solution.
        grader: Compares a solution with the reference, in a process of its own.

    A solution ends where its box closes, or where the model ends it. Without a final answer (see ``final_answer``) it
    is wrong: a text that was cut at ``max_new_tokens`` is not judged by the last number in it. The margin is the
    smallest gap on the way between a chosen token and the runner-up, negative where the answer is wrong: how far the
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
            stop=lambda row, tokens: _has_ended(examples[row], tokens, model.tokenizer),
        )
        outcomes = []
        for prepared, program, row in zip(examples, programs, decoded):
            response = model.tokenizer.decode(row.tokens, skip_special_tokens=True).strip()
            ended = not model.end_tokens.isdisjoint(row.tokens[-1:])
            written = row.tokens[:-1] if ended else row.tokens
            text = _with_thinking(prepared, model.tokenizer.decode(written))
            overflows = math.isnan(row.gap)
            reason = "ungradable" if overflows else self._reason(text, prepared.example.answer, ended=ended)
            correct = reason == "ended"
            outcomes.append(
                Outcome(
                    correct=correct,
                    reason=reason,
                    margin=-math.inf if overflows else row.gap if correct else -row.gap,
                    response=response,
                    layer_executions=len(program) * row.passes,
                )
            )
        return outcomes

    def _reason(self, text: str, answer: str, *, ended: bool) -> Reason:
        stated = final_answer(text, ended=ended)
        if stated is None:
            return "no final answer" if ended else "cut"
        comparison = self.grader.compare(stated, answer)
        return "ended" if comparison == "equal" else comparison


def _has_ended(prepared: PreparedExample, tokens: Sequence[int], tokenizer: Any) -> bool:
    """Whether a box has just been closed. The whole text is decoded only where the newest tokens may close one."""
    newest = tokenizer.decode(tokens[-1:])
    if "}" not in newest and "box" not in tokenizer.decode(tokens[-_BARE_BOX_TOKENS:]):
        return False
    return ends_with_box(_with_thinking(prepared, tokenizer.decode(tokens)))


def _with_thinking(prepared: PreparedExample, text: str) -> str:
    """The text with the mark that opens its thinking, where the prompt ends with it."""
    return _OPEN_THINKING + text if prepared.prompt.rstrip().endswith(_OPEN_THINKING) else text

"""Four ways to judge an answer, each from the fewest forward passes that settle it.

Correctness is always 0 or 1; the margin says how far the logits are from the other verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.program import LayerProgram
from pipeline.tasks.base import Example, Outcome, Question, Runner
from pipeline.tasks.grading import MathGrader

if TYPE_CHECKING:
    import torch

    from pipeline.engine.decoding import Decoded

# A boxed answer that is closed, with up to one level of braces inside.
_FINAL_ANSWER = re.compile(r"\\boxed\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
_ANSWER_TOKENS = 64
#: One pass over the prompt keeps the processor busy with few programs; a token at a time takes many.
FEW_LEAVES = 1
MANY_LEAVES = 8


@dataclass(frozen=True)
class Choice:
    """The model answers with the option that it finds likeliest.

    Options of one token (letters) need the prompt's last position alone; longer ones are each read
    as a continuation.

    Attributes:
        per_character: Divide an option's log-likelihood by its length in characters, so that long
            options are not punished (lm-evaluation-harness calls this ``acc_norm``).

    The margin is the reference option's (log-likelihood, per character or not) minus the best other's.
    """

    per_character: bool

    @property
    def margins_compare(self) -> bool:
        return True

    @property
    def leaves(self) -> int:
        return FEW_LEAVES

    def room(self, question: Question) -> int:
        return max(len(answer) for answer in question.answers)

    def targets(self, example: Example) -> Sequence[str]:
        return example.options

    def score(
        self,
        model: Runner,
        questions: Sequence[Question],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        rows: list[tuple[list[int], list[list[int]]]] = []  # tokens run, continuations that it tells
        owners: list[int] = []
        for index, question in enumerate(questions):
            single = all(len(answer) == 1 for answer in question.answers)
            groups = [question.answers] if single else [[answer] for answer in question.answers]
            for group in groups:
                # The last token of a continuation is never run: nothing after it is asked.
                rows.append((question.prompt_ids + group[0][:-1], group))
                owners.append(index)

        logits = model.logits(
            [tokens for tokens, _ in rows],
            [programs[owner] for owner in owners],
            starts=[len(questions[owner].prompt_ids) - 1 for owner in owners],
        )
        scores: list[list[float]] = [[] for _ in questions]
        passes = [0] * len(questions)
        for (_, group), owner, row_logits in zip(rows, owners, logits):
            log_probs = row_logits.log_softmax(-1)
            passes[owner] += 1
            for answer in group:
                scores[owner].append(float(log_probs[list(range(len(answer))), answer].sum()))
        return [
            self._outcome(question, scores[index], passes[index] * len(programs[index]))
            for index, question in enumerate(questions)
        ]

    def _outcome(self, question: Question, scores: list[float], layer_executions: int) -> Outcome:
        options = question.example.options
        if self.per_character:
            scores = [score / max(len(option), 1) for score, option in zip(scores, options)]
        chosen = max(range(len(options)), key=lambda index: scores[index])
        reference = options.index(question.example.answer)
        others = [score for index, score in enumerate(scores) if index != reference]
        # The largest of some is found as if what is no number were not among them.
        margin = math.nan if any(map(math.isnan, scores)) else scores[reference] - max(others)
        correct, margin = _judged(options[chosen] == question.example.answer, margin)
        return Outcome(
            correct=correct,
            margin=margin,
            response=options[chosen],
            layer_executions=layer_executions,
        )


@dataclass(frozen=True)
class ExactMatch:
    """The model's greedy answer, up to its first line end, must be the reference to the letter.

    One teacher-forced pass settles most verdicts: greedy decoding gives the reference if and only if
    each of its tokens is the arg-max at its place. Tokens are generated only where the text could
    still become the reference through other tokens, or where the response is wanted.

    Attributes:
        max_new_tokens: Most tokens of an answer that is generated.

    The margin is the smallest gap between a reference token's logit and the best other one's, over the
    whole reference read after the prompt (and the token that ends it, where all of it is right).
    """

    max_new_tokens: int

    @property
    def margins_compare(self) -> bool:
        return True

    @property
    def leaves(self) -> int:
        return FEW_LEAVES

    def room(self, question: Question) -> int:
        # An answer that is longer than the limit must still fit, with the token that ends it.
        return max(self.max_new_tokens, len(question.answers[0]) + 1)

    def targets(self, example: Example) -> Sequence[str]:
        return (example.answer,)

    def score(
        self,
        model: Runner,
        questions: Sequence[Question],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        logits = model.logits(
            [question.prompt_ids + question.answers[0] for question in questions],
            programs,
            starts=[len(question.prompt_ids) - 1 for question in questions],
        )
        agreements = [self._agreement(model, read, question) for read, question in zip(logits, questions)]
        outcomes: list[Outcome | None] = []
        for question, program, (agreed, gap) in zip(questions, programs, agreements):
            text = model.tokenizer.decode(agreed, skip_special_tokens=True)
            ended = not model.end_tokens.isdisjoint(agreed[-1:])
            verdict = _verdict(text, question.example.answer, ended=ended)
            settled = verdict is not None and (verdict or not need_response)
            correct, margin = _judged(bool(verdict), abs(gap) if verdict else -abs(gap))
            outcomes.append(
                Outcome(
                    correct=correct,
                    margin=margin,
                    response=question.example.answer if verdict else None,
                    layer_executions=len(program),
                )
                if settled
                else None
            )

        open_rows = [index for index, outcome in enumerate(outcomes) if outcome is None]
        # Each row's own limit, whatever else is in the call: an answer is cut where it always is.
        limits = {index: self.room(questions[index]) for index in open_rows}
        for limit in sorted(set(limits.values())):
            rows = [index for index in open_rows if limits[index] == limit]
            decoded = self._decode(
                model,
                [questions[index] for index in rows],
                [programs[index] for index in rows],
                [agreements[index][0] for index in rows],
                limit,
                need_response,
            )
            for index, row in zip(rows, decoded):
                text = model.tokenizer.decode(row.tokens, skip_special_tokens=True)
                response = _first_line(text)
                # A text that the limit cuts may go on: it is no answer yet.
                ended = _has_line_end(text) or not model.end_tokens.isdisjoint(row.tokens[-1:])
                right = ended and response == questions[index].example.answer
                agreed, gap = agreements[index]
                written = _smaller(_least_gap(logits[index][: len(agreed)]), row.gap)
                correct, margin = _judged(right, written if right else -abs(gap))
                outcomes[index] = Outcome(
                    correct=correct,
                    margin=margin,
                    response=response if right or need_response else None,
                    layer_executions=len(programs[index]) * (1 + row.passes),
                )
        return [outcome for outcome in outcomes if outcome is not None]

    def _agreement(self, model: Runner, logits: torch.Tensor, question: Question) -> tuple[list[int], float]:
        """What one pass tells of the greedy answer: its first tokens, and the smallest gap along the reference."""
        agreed, gap = _followed(logits, question.answers[0])
        prompt = len(question.prompt_ids)
        return (agreed if model.reads_alike(prompt, prompt + len(question.answers[0])) else []), gap

    def _decode(
        self,
        model: Runner,
        questions: list[Question],
        programs: list[LayerProgram],
        begun: list[list[int]],
        limit: int,
        need_response: bool,
    ) -> list[Decoded]:
        """Write the answers on from where greedy decoding leaves the reference, until no further token is needed."""

        def stop(row: int, tokens: list[int]) -> bool:
            text = model.tokenizer.decode(tokens, skip_special_tokens=True)
            answer = questions[row].example.answer
            return _read_enough(text, answer, need_response=need_response)

        return model.decode(
            [question.prompt_ids for question in questions], programs, max_new_tokens=limit, stop=stop, begun=begun
        )


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

    @property
    def margins_compare(self) -> bool:
        # The gap of a wrong text says how near another text is, not how near the reference.
        return False

    @property
    def leaves(self) -> int:
        return MANY_LEAVES

    def room(self, question: Question) -> int:
        return self.max_new_tokens

    def targets(self, example: Example) -> Sequence[str]:
        return ()

    def score(
        self,
        model: Runner,
        questions: Sequence[Question],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        decoded = model.decode(
            [question.prompt_ids for question in questions],
            programs,
            max_new_tokens=self.max_new_tokens,
            stop=lambda row, tokens: _has_final_answer(model.tokenizer.decode(tokens[-_ANSWER_TOKENS:])),
        )
        outcomes = []
        for question, program, row in zip(questions, programs, decoded):
            response = model.tokenizer.decode(row.tokens, skip_special_tokens=True).strip()
            correct = self.grader.equal(response, question.example.answer)
            outcomes.append(
                Outcome(
                    correct=correct,
                    margin=row.gap if correct else -row.gap,
                    response=response,
                    layer_executions=len(program) * row.passes,
                )
            )
        return outcomes


def _judged(correct: bool, margin: float) -> tuple[bool, float]:
    """A verdict over logits that are not numbers (an overflow) is none: it counts as surely wrong."""
    return (False, -math.inf) if math.isnan(margin) else (correct, margin)


def _followed(logits: torch.Tensor, reference: list[int]) -> tuple[list[int], float]:
    """How far greedy decoding follows the reference.

    Args:
        logits: ``[len(reference) + 1, vocab]``, from the prompt's last position on.
        reference: The reference's tokens.

    Returns:
        The tokens that greedy decoding gives up to the first that differs, or the reference and the
        token after it; and the smallest gap along the reference, negative where a token differs.
    """
    top = logits.topk(2, dim=-1).values
    best = logits.argmax(dim=-1)  # the first of equals, as stock decoding has it
    chosen = best.tolist()
    target = best.new_tensor(reference)
    own = logits[:-1].gather(1, target[:, None])[:, 0]
    best_other = top[:-1, 1].where(best[:-1] == target, top[:-1, 0])
    gap = float((own - best_other).min())
    for position, token in enumerate(reference):
        if chosen[position] != token:
            return [*reference[:position], chosen[position]], gap
    return [*reference, chosen[-1]], _smaller(gap, float(top[-1, 0] - top[-1, 1]))


def _smaller(gap: float, other: float) -> float:
    """The smaller one; none where either is none."""
    return gap if gap < other or math.isnan(gap) else other


def _least_gap(logits: torch.Tensor) -> float:
    """The smallest distance between the likeliest token's logit and the next one's, over ``[positions, vocab]``."""
    if not len(logits):
        return math.inf
    top = logits.topk(2, dim=-1).values
    return float((top[:, 0] - top[:, 1]).min())


def _verdict(text: str, answer: str, *, ended: bool) -> bool | None:
    """Whether a text that may go on is the answer; None where what follows decides."""
    if ended or _has_line_end(text):
        return _first_line(text) == answer
    # A character of several bytes may still be on its way.
    return None if answer.startswith(_first_line(text.rstrip("\ufffd"))) else False


def _read_enough(text: str, answer: str, *, need_response: bool) -> bool:
    """Whether a text that is being written needs no further token."""
    if need_response:
        return _has_line_end(text)
    return _verdict(text, answer, ended=False) is not None


def _has_line_end(text: str) -> bool:
    return "\n" in text.lstrip(" ")


def _first_line(text: str) -> str:
    return text.lstrip(" ").partition("\n")[0].strip()


def _has_final_answer(text: str) -> bool:
    return _FINAL_ANSWER.search(text) is not None

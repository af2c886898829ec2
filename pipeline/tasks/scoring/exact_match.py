"""Four ways to judge an answer, each from the fewest forward passes that settle it.

Correctness is always 0 or 1; the margin says how far the logits are from the other verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.program import LayerProgram
from pipeline.tasks.types import Example, Outcome, Question, Runner

if TYPE_CHECKING:
    import torch

    from pipeline.engine.greedy_decoding import Decoded
from pipeline.tasks.scoring.margins import FEW_LEAVES, judged, least_gap, smaller


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
            correct, margin = judged(bool(verdict), abs(gap) if verdict else -abs(gap))
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
                written = smaller(least_gap(logits[index][: len(agreed)]), row.gap)
                correct, margin = judged(right, written if right else -abs(gap))
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
    return [*reference, chosen[-1]], smaller(gap, float(top[-1, 0] - top[-1, 1]))


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

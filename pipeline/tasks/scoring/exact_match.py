"""Exact match: the model writes its answer, which must be the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.program import LayerProgram
from pipeline.tasks.scoring.forced_pass import ForcedPass, forced_passes
from pipeline.tasks.scoring.margins import FEW_LEAVES, least_gap, result_of, smaller
from pipeline.tasks.types import Example, Outcome, PreparedExample, Runner


@dataclass(frozen=True)
class ExactMatch:
    """The model's greedy answer, up to its first line end, must equal an accepted answer, character by character.

    One teacher-forced pass over the first accepted answer decides most rows. Tokens are generated only where the text
    could still become an accepted answer, the first through other tokens, or where the response is needed.

    Attributes:
        max_new_tokens: Most tokens of an answer that is generated.

    The margin is the smallest gap between a reference token's logit and the best other token's, over the whole
    reference read after the prompt (and the token that ends it, where all of it is right).
    """

    max_new_tokens: int

    # Facts of the kind, not fields; see ``Scoring``.
    generates = True
    answers_compare = True
    margins_compare = True
    leaves = FEW_LEAVES

    def with_max_new_tokens(self, number: int) -> ExactMatch:
        return replace(self, max_new_tokens=number)

    def room(self, prepared: PreparedExample) -> int:
        # An answer that is longer than the limit must still fit, with the token that ends it.
        return max(self.max_new_tokens, len(prepared.answers[0]) + 1)

    def targets(self, example: Example) -> Sequence[str]:
        return (example.answer,)

    def score(
        self,
        model: Runner,
        examples: Sequence[PreparedExample],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        passes = forced_passes(model, examples, programs)
        outcomes: dict[int, Outcome] = {}
        for index, (prepared, program, forced) in enumerate(zip(examples, programs, passes, strict=True)):
            outcome = self._score_by_teacher_forcing(model, prepared, program, forced, need_response=need_response)
            if outcome is not None:
                outcomes[index] = outcome
        open_rows = [index for index in range(len(examples)) if index not in outcomes]
        # Each row has its own limit, so that its answer is cut at the same token in every call.
        limits = {index: self.room(examples[index]) for index in open_rows}
        for limit in sorted(set(limits.values())):
            rows = [index for index in open_rows if limits[index] == limit]
            decoded = self._score_by_decoding(
                model,
                [examples[index] for index in rows],
                [programs[index] for index in rows],
                [passes[index] for index in rows],
                limit,
                need_response=need_response,
            )
            outcomes.update(zip(rows, decoded, strict=True))
        assert len(outcomes) == len(examples)
        return [outcomes[index] for index in range(len(examples))]

    def _score_by_teacher_forcing(
        self,
        model: Runner,
        prepared: PreparedExample,
        program: LayerProgram,
        forced: ForcedPass,
        *,
        need_response: bool,
    ) -> Outcome | None:
        """The outcome where the pass over prompt and reference decides it; None where tokens must be generated."""
        text = model.tokenizer.decode(forced.agreed, skip_special_tokens=True)
        ended = not model.end_tokens.isdisjoint(forced.agreed[-1:])
        verdict = _verdict(text, prepared.example.references, ended=ended)
        if verdict is None or (need_response and not verdict):
            return None
        result = result_of(verdict, abs(forced.gap) if verdict else -abs(forced.gap))
        return Outcome(
            correct=result.correct,
            reason=result.reason,
            margin=result.margin,
            response=_first_line(text) if verdict else None,
            layer_executions=len(program),
        )

    def _score_by_decoding(
        self,
        model: Runner,
        examples: list[PreparedExample],
        programs: list[LayerProgram],
        passes: list[ForcedPass],
        limit: int,
        *,
        need_response: bool,
    ) -> list[Outcome]:
        """The outcomes of rows whose answers are written on from where greedy decoding leaves the reference."""

        def stop(row: int, tokens: list[int]) -> bool:
            text = model.tokenizer.decode(tokens, skip_special_tokens=True)
            return _read_enough(text, examples[row].example.references, need_response=need_response)

        decoded = model.decode(
            [prepared.prompt_ids for prepared in examples],
            programs,
            max_new_tokens=limit,
            stop=stop,
            begun=[forced.agreed for forced in passes],
        )
        outcomes = []
        for prepared, program, forced, row in zip(examples, programs, passes, decoded, strict=True):
            text = model.tokenizer.decode(row.tokens, skip_special_tokens=True)
            response = _first_line(text)
            # A text that the limit cuts may go on: it is no answer yet.
            ended = not model.end_tokens.isdisjoint(row.tokens[-1:])
            verdict = _verdict(text, prepared.example.references, ended=ended)
            right = verdict is True
            written = smaller(least_gap(forced.logits[: len(forced.agreed)]), row.gap)
            result = result_of(
                right, written if right else -abs(forced.gap), wrong="cut" if verdict is None else "unequal"
            )
            outcomes.append(
                Outcome(
                    correct=result.correct,
                    reason=result.reason,
                    margin=result.margin,
                    response=response if right or need_response else None,
                    layer_executions=len(program) * (1 + row.passes),
                )
            )
        return outcomes


def _verdict(text: str, references: Sequence[str], *, ended: bool) -> bool | None:
    """Whether a text that may go on is an accepted answer; None where what follows decides."""
    if ended or _has_line_end(text):
        return _first_line(text) in references
    # A character of several bytes may still be on its way.
    begun = _first_line(text.rstrip("\ufffd"))
    return None if any(reference.startswith(begun) for reference in references) else False


def _read_enough(text: str, references: Sequence[str], *, need_response: bool) -> bool:
    """Whether a text that is being written needs no further token."""
    if need_response:
        return _has_line_end(text)
    return _verdict(text, references, ended=False) is not None


def _has_line_end(text: str) -> bool:
    return "\n" in text.lstrip(" ")


def _first_line(text: str) -> str:
    return text.lstrip(" ").partition("\n")[0].strip()

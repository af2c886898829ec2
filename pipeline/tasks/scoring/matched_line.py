"""Matched line: the model writes its answer, whose first line must match a reference (``pipeline.tasks.matching``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.program import LayerProgram
from pipeline.tasks.matching import Match, answer_line, could_match, has_answer_line, matches
from pipeline.tasks.scoring.forced_pass import forced_passes
from pipeline.tasks.scoring.margins import FEW_LEAVES, MANY_LEAVES, least_gap, result_of, smaller
from pipeline.tasks.types import Example, Outcome, PreparedExample, Runner


@dataclass(frozen=True, kw_only=True)
class MatchedLine:
    """The answer line of the model's greedy text must match one of the accepted answers.

    The answer line is the first line that is not empty. It ends with a line end or with the model's end token; a text
    that ``max_new_tokens`` cuts before is no answer. A teacher-forced pass over the first accepted answer shows how the
    greedy text begins: many rows end with it, and the others are written on from there.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        match: The rule that compares the answer line with a reference.

    The margin of a right answer is the smallest gap on the way between a chosen token and the runner-up. That of a
    wrong one is the smallest gap along the first accepted answer, negative: how near that answer is. A regular
    expression is no text that a model could be forced to read, so the gap on the way is all that is known.
    """

    max_new_tokens: int
    match: Match

    # Facts of the kind, not fields; see ``Scoring``.
    generates = True
    answers_compare = False  # "Paris" and "Paris." are two texts

    @property
    def margins_compare(self) -> bool:
        return self._forces

    @property
    def leaves(self) -> int:
        # Only these rules can tell a wrong answer from its beginning; with others every answer is written to its end.
        return FEW_LEAVES if self.match in ("exact", "normalized") else MANY_LEAVES

    def with_max_new_tokens(self, number: int) -> MatchedLine:
        return replace(self, max_new_tokens=number)

    def room(self, prepared: PreparedExample) -> int:
        return max([self.max_new_tokens, *(len(tokens) + 1 for tokens in prepared.answers)])

    def targets(self, example: Example) -> Sequence[str]:
        return (example.answer,) if self._forces else ()

    def score(
        self,
        model: Runner,
        examples: Sequence[PreparedExample],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        passes = forced_passes(model, examples, programs) if self._forces else [None] * len(examples)
        begun = [[] if forced is None else forced.agreed[: self.max_new_tokens] for forced in passes]

        def has_ended(index: int, tokens: Sequence[int]) -> bool:
            return self._has_ended(model, examples[index].example, tokens, need_response=need_response)

        def outcome(index: int, tokens: Sequence[int], gap: float, num_passes: int) -> Outcome:
            forced, references = passes[index], examples[index].example.references
            if forced is not None:
                gap, num_passes = smaller(least_gap(forced.logits[: len(begun[index])]), gap), num_passes + 1
            text = model.tokenizer.decode(tokens, skip_special_tokens=True)
            # A text that the limit cuts may go on: it is no answer yet.
            is_whole = has_answer_line(text) or not model.end_tokens.isdisjoint(tokens[-1:])
            right = is_whole and matches(self.match, answer_line(text), references)
            to_reference = gap if forced is None else abs(forced.gap)
            is_cut = not is_whole and len(tokens) >= self.max_new_tokens
            result = result_of(right, gap if right else -to_reference, wrong="cut" if is_cut else "unequal")
            return Outcome(
                correct=result.correct,
                reason=result.reason,
                margin=result.margin,
                response=answer_line(text) if right or need_response else None,
                layer_executions=len(programs[index]) * num_passes,
            )

        open_rows = [index for index, tokens in enumerate(begun) if not has_ended(index, tokens)]
        outcomes = {
            index: outcome(index, tokens, math.inf, 0) for index, tokens in enumerate(begun) if index not in open_rows
        }
        if open_rows:
            decoded = model.decode(
                [examples[index].prompt_ids for index in open_rows],
                [programs[index] for index in open_rows],
                max_new_tokens=self.max_new_tokens,
                stop=lambda row, tokens: has_ended(open_rows[row], tokens),
                begun=[begun[index] for index in open_rows],
            )
            for index, row in zip(open_rows, decoded, strict=True):
                outcomes[index] = outcome(index, row.tokens, row.gap, row.passes)
        return [outcomes[index] for index in range(len(examples))]

    def _has_ended(self, model: Runner, example: Example, tokens: Sequence[int], *, need_response: bool) -> bool:
        """Whether a text that is being written needs no further token."""
        if len(tokens) >= self.max_new_tokens or not model.end_tokens.isdisjoint(tokens[-1:]):
            return True
        text = model.tokenizer.decode(tokens, skip_special_tokens=True)
        if has_answer_line(text):
            return True
        return not need_response and not could_match(self.match, text, example.references)

    @property
    def _forces(self) -> bool:
        """Whether the reference is a text that the model could write."""
        return self.match != "regex"

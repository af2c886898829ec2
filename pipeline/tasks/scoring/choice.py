"""Choice: the model answers with the option that it finds likeliest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.program import LayerProgram
from pipeline.tasks.scoring.margins import FEW_LEAVES, result_of
from pipeline.tasks.types import Example, Outcome, PreparedExample, Runner


@dataclass(frozen=True)
class Choice:
    """Scores the model's answer: the option that it finds likeliest.

    Options of one token (letters) need the prompt's last position alone; longer ones are each read
    as a continuation.

    Attributes:
        per_character: Divide an option's log-likelihood by its length in characters, so that long
            options are not punished (lm-evaluation-harness calls this ``acc_norm``).

    The margin is the reference option's (log-likelihood, per character or not) minus the best other's. Where it is 0,
    the example is wrong: an option's place in the list decides nothing.
    """

    per_character: bool

    # Facts of the kind, not fields; see ``Scoring``.
    generates = False
    answers_compare = True
    margins_compare = True
    leaves = FEW_LEAVES

    def with_max_new_tokens(self, number: int) -> Choice:
        raise AssertionError("no text is generated")

    def room(self, prepared: PreparedExample) -> int:
        return max(len(answer) for answer in prepared.answers)

    def targets(self, example: Example) -> Sequence[str]:
        return example.options

    def score(
        self,
        model: Runner,
        examples: Sequence[PreparedExample],
        programs: Sequence[LayerProgram],
        *,
        need_response: bool,
    ) -> list[Outcome]:
        scored = self.log_likelihoods(model, examples, programs)
        return [
            self._outcome(prepared, scores, _passes(prepared) * len(program))
            for prepared, program, scores in zip(examples, programs, scored, strict=True)
        ]

    def log_likelihoods(
        self, model: Runner, examples: Sequence[PreparedExample], programs: Sequence[LayerProgram]
    ) -> list[list[float]]:
        """The log-likelihood of each example's options under its program; per character where the kind says so."""
        rows: list[tuple[list[int], list[list[int]]]] = []  # tokens run, continuations that their logits score
        owners: list[int] = []
        for index, prepared in enumerate(examples):
            groups = [prepared.answers] if _passes(prepared) == 1 else [[answer] for answer in prepared.answers]
            for group in groups:
                # The last token of a continuation is never run: no logits behind it are needed.
                rows.append((prepared.prompt_ids + group[0][:-1], group))
                owners.append(index)

        logits = model.logits(
            [tokens for tokens, _ in rows],
            [programs[owner] for owner in owners],
            starts=[len(examples[owner].prompt_ids) - 1 for owner in owners],
        )
        scores: list[list[float]] = [[] for _ in examples]
        for (_, group), owner, row_logits in zip(rows, owners, logits):
            log_probs = row_logits.log_softmax(-1)
            for answer in group:
                scores[owner].append(float(log_probs[list(range(len(answer))), answer].sum()))
        if not self.per_character:
            return scores
        return [
            [score / max(len(option), 1) for score, option in zip(of_example, prepared.example.options)]
            for of_example, prepared in zip(scores, examples)
        ]

    def _outcome(self, prepared: PreparedExample, scores: list[float], layer_executions: int) -> Outcome:
        options = prepared.example.options
        chosen = max(range(len(options)), key=lambda index: scores[index])
        reference = options.index(prepared.example.answer)
        others = [score for index, score in enumerate(scores) if index != reference]
        # ``max`` would skip a NaN.
        margin = math.nan if any(map(math.isnan, scores)) else scores[reference] - max(others)
        result = result_of(options[chosen] == prepared.example.answer, margin)
        return Outcome(
            correct=result.correct,
            reason=result.reason,
            margin=result.margin,
            response=options[chosen],
            layer_executions=layer_executions,
        )


def _passes(prepared: PreparedExample) -> int:
    """Texts that are read for an example: one where every option is a token, else one for each option."""
    return 1 if all(len(answer) == 1 for answer in prepared.answers) else len(prepared.answers)

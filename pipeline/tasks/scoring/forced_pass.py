"""The teacher-forced pass: a program reads a prompt with its reference answer, which shows how its own answer begins.

Greedy decoding gives the reference if and only if each of its tokens is the arg-max at its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.program import LayerProgram
from pipeline.tasks.scoring.margins import smaller
from pipeline.tasks.types import PreparedExample, Runner

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ForcedPass:
    """The greedy answer as far as one pass over a prompt and its reference shows it.

    Attributes:
        logits: ``[reference tokens + 1, vocab]``, from the prompt's last position on.
        agreed: The first tokens of the greedy answer, as far as the pass shows them.
        gap: The smallest gap along the reference, negative where a token differs.
    """

    logits: torch.Tensor
    agreed: list[int]
    gap: float


def forced_passes(
    model: Runner, examples: Sequence[PreparedExample], programs: Sequence[LayerProgram]
) -> list[ForcedPass]:
    """The pass of each program over its example's prompt and first reference answer, all in one model call."""
    read = model.logits(
        [prepared.prompt_ids + prepared.answers[0] for prepared in examples],
        programs,
        starts=[len(prepared.prompt_ids) - 1 for prepared in examples],
    )
    return [_forced_pass(model, logits, prepared) for logits, prepared in zip(read, examples, strict=True)]


def _forced_pass(model: Runner, logits: torch.Tensor, prepared: PreparedExample) -> ForcedPass:
    agreed, gap = _followed(logits, prepared.answers[0])
    prompt = len(prepared.prompt_ids)
    # A model that reads a longer text in another way shows nothing of the shorter one.
    shows = model.reads_alike(prompt, prompt + len(prepared.answers[0]))
    return ForcedPass(logits, agreed if shows else [], gap)


def _followed(logits: torch.Tensor, reference: list[int]) -> tuple[list[int], float]:
    """The greedy answer along the reference, and its smallest gap.

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

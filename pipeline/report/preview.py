"""What a user is told before a search begins: some of the base model's answers, and whether they look like a mistake.

A base model that is right on nearly no example, or on nearly all, often means that answers are compared in a way that
the user did not want, or that the prompt is not in the model's form.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.charts import percent_of
from pipeline.report.shortened import beginning_of, both_ends_of, ends_of
from pipeline.tasks.base_answer import BaseAnswer
from pipeline.tasks.matching import Match
from pipeline.tasks.prompt_answer import PROMPT_ANSWER

#: Examples that are shown.
NUM_SHOWN = 3
#: Shares of right answers below and above which something may be amiss.
FEW, NEARLY_ALL = 0.05, 0.95
#: The share of answers that are cut above which that is worth a warning.
MANY_CUT = 0.25


def preview_lines(answers: Sequence[BaseAnswer], *, task: str, match: Match | None = None) -> list[str]:
    """Lines with the first answers, the number of right ones, and warnings.

    Args:
        answers: The base model's answers to the first examples.
        task: Name of the task.
        match: The rule by which answers to rows of one's own are compared; None for the default.
    """
    if not answers:
        return []
    right, number = sum(answer.correct for answer in answers), len(answers)
    lines = []
    shown = answers[:NUM_SHOWN]
    for answer, prompt in zip(shown, ends_of([one.prompt for one in shown]), strict=True):
        accepted = " or ".join(map(repr, answer.references))
        verdict = "right" if answer.correct else f"wrong: {answer.reason}"
        lines += [
            f"  prompt    {prompt}",
            f"  expected  {beginning_of(accepted)}",
            f"  got       {both_ends_of(repr(answer.response))}  {verdict}",
        ]
    lines.append(
        f"The base model is right on {right} of the first {number} examples ({percent_of(right, number)}); "
        f"above are the first {min(NUM_SHOWN, number)}."
    )
    warnings = _warnings(answers, own_data=task == PROMPT_ANSWER.name, match=match)
    return lines + [f"Warning: {warning}" for warning in warnings]


def _warnings(answers: Sequence[BaseAnswer], *, own_data: bool, match: Match | None) -> list[str]:
    share = sum(answer.correct for answer in answers) / len(answers)
    # A shorter text may state an equal number.
    too_long = 0 if match == "number" else sum(not answer.reference_fits for answer in answers)
    cut = sum(answer.reason == "cut" for answer in answers)
    warnings = []
    if cut > MANY_CUT * len(answers):
        warnings.append(
            f"{cut} of the first {len(answers)} answers are cut by --max-new-tokens before they end; allow more, or "
            "have the prompt ask for a short answer."
        )
    if too_long:
        warnings.append(
            f"for {too_long} of the first {len(answers)} examples the first accepted answer is longer than "
            "--max-new-tokens; allow more."
        )
    if share < FEW:
        remedy = (
            "If answers above are right to you, try --match contains, number or regex; if they are cut or beside the "
            "point, try a larger --max-new-tokens, --chat, or a prompt with solved examples: see docs/own_data.md."
            if own_data
            else "If answers above are right to you, check the data's reference answers: see docs/search.md."
        )
        warnings.append(f"the base model is right on nearly no example. {remedy}")
    if share > NEARLY_ALL:
        remedy = " If answers above are wrong to you, try a stricter --match: see docs/own_data.md." if own_data else ""
        warnings.append(
            f"the base model is right on nearly every example: there is little to correct, only to shorten.{remedy}"
        )
    return warnings

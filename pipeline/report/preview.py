"""What a user is told before a search begins: some of the base model's answers, and whether they look like a mistake.

A base model that is right on nearly no example, or on nearly all, often means that answers are compared in a way that
the user did not want, or that the prompt is not in the model's form.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.charts import percent_of
from pipeline.report.shortened import beginning_of, both_ends_of, ends_of
from pipeline.tasks.base_answer import BaseAnswer
from pipeline.tasks.matching import Match, answer_line, flaw_of_reference, matches
from pipeline.tasks.prompt_answer import PROMPT_ANSWER
from pipeline.tasks.task_options import DEFAULT_MATCH, TaskOptions

#: Examples that are shown.
NUM_SHOWN = 3
#: Shares of right answers below and above which something may be amiss.
FEW, NEARLY_ALL = 0.05, 0.95
#: The share of answers that are cut above which that is worth a warning.
MANY_CUT = 0.25
#: Rules by which more answers are right than by others.
_LOOSER: tuple[Match, ...] = ("normalized", "contains", "number")


def preview_lines(answers: Sequence[BaseAnswer], *, task: str, options: TaskOptions | None = None) -> list[str]:
    """Lines with the first answers, the number of right ones, and warnings.

    Args:
        answers: The base model's answers to the first examples.
        task: Name of the task.
        options: The task's options; None for the defaults.
    """
    if not answers:
        return []
    own_data, chosen = task == PROMPT_ANSWER.name, TaskOptions() if options is None else options
    right, number = sum(answer.correct for answer in answers), len(answers)
    lines = [_reading(chosen)] if own_data else []
    shown = answers[:NUM_SHOWN]
    for answer, prompt in zip(shown, ends_of([one.prompt for one in shown]), strict=True):
        accepted = " or ".join(f"'{reference}'" for reference in answer.references)
        got = both_ends_of(f"'{answer.response}'")
        verdict = "right" if answer.correct else f"wrong: {answer.reason}"
        lines += [
            f"  prompt    {prompt}",
            f"  expected  {beginning_of(accepted)}",
            f"  got       {got}  {verdict}",
        ]
    lines.append(
        f"The base model is right on {right} of the first {number} examples ({percent_of(right, number)}); "
        f"above are the first {min(NUM_SHOWN, number)}."
    )
    warnings = _warnings(answers, own_data=own_data, options=chosen)
    if warnings:
        warnings.append("Ctrl-C stops the search; while nothing is committed, the same --out takes other options.")
    return lines + [f"Warning: {warning}" for warning in warnings[:-1]] + warnings[-1:]


def _reading(options: TaskOptions) -> str:
    """How rows of one's own are read."""
    prompts, answers, match = options.prompt_column, options.answer_column, options.match or DEFAULT_MATCH
    template = ", in the model's chat template" if options.chat else ""
    return f"Prompts: column {prompts!r}{template}. Answers: column {answers!r}, compared by --match {match}."


def _warnings(answers: Sequence[BaseAnswer], *, own_data: bool, options: TaskOptions) -> list[str]:
    number = len(answers)
    share = sum(answer.correct for answer in answers) / number
    # A shorter text may state an equal number.
    too_long = 0 if options.match == "number" else sum(not answer.reference_fits for answer in answers)
    cut = sum(answer.reason == "cut" for answer in answers)
    warnings = []
    if cut > MANY_CUT * number:
        warnings.append(
            f"of the first {number} answers {cut} {_are(cut)} cut by --max-new-tokens before the end; allow more, or "
            "have the prompt ask for a short answer."
        )
    if too_long:
        warnings.append(
            f"for {too_long} of the first {number} examples the first accepted answer is longer than "
            "--max-new-tokens; allow more."
        )
    if share < FEW:
        remedy = (
            _remedy(answers, options)
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


def _remedy(answers: Sequence[BaseAnswer], options: TaskOptions) -> str:
    """What to try where a base model is right on nearly no row of one's own."""
    number = len(answers)
    ways = [] if options.chat else ["--chat, if the model was tuned for chats"]
    ways.append("a prompt with solved examples")
    empty = sum(not answer.response.strip() for answer in answers)
    if empty > number / 2:
        return (
            f"Of the first {number} answers {empty} {_are(empty)} empty: the model ends at once. Try "
            f"{', or '.join(ways)}: see docs/own_data.md."
        )
    would_match = {rule: _num_matched(answers, rule) for rule in _LOOSER if rule != options.match}
    best = max(would_match, key=would_match.__getitem__)
    if would_match[best] > FEW * number:
        return f"--match {best} would call {would_match[best]} of the first {number} right: see docs/own_data.md."
    return (
        "If answers above are right to you, give lists of accepted answers; if they are beside the point, try "
        f"{', or '.join(ways)}: see docs/own_data.md."
    )


def _num_matched(answers: Sequence[BaseAnswer], rule: Match) -> int:
    """The number of answers that a rule calls right; 0 where it cannot compare with a reference."""
    if any(flaw_of_reference(rule, reference) for answer in answers for reference in answer.references):
        return 0
    return sum(matches(rule, answer_line(answer.response), answer.references) for answer in answers)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"

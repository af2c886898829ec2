"""The examples of an evaluation: those that no router was trained on, in whatever wording it saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from pipeline.engine.loading import load_description
from pipeline.errors import UserError
from pipeline.model_source import ModelSource
from pipeline.tasks import Example, Task
from pipeline.tasks.prompting import PROMPT_VERSION, Prompting, is_day
from router.artifact.base_model import text_fingerprint
from router.routed.checkpoint import Router


def unseen_examples(
    found: Sequence[Example],
    earlier: Sequence[Example],
    task: Task,
    source: ModelSource,
    *,
    trained_on: frozenset[int],
    days: Sequence[str] = (),
) -> tuple[list[Example], dict[str, int]]:
    """The examples to evaluate on, and the number of those left out, by the reason.

    Left out are examples that were trained on, or whose prompt cannot be made.

    Args:
        found: The examples.
        earlier: The same examples in the wordings of prompt version 1, in which an older router may know them.
        task: Their task.
        source: The base model.
        trained_on: Fingerprints (see ``text_fingerprint``) of the prompts and examples that were trained on.
        days: The dates in the prompts of the training's runs, as ``Prompting.day`` has them.

    Raises:
        UserError: No example is left, or the task needs a chat template that the model does not have.
    """
    model, tokenizer = load_description(source)
    task.check_tokenizer(tokenizer)
    known_as = [replace(task, prompting=prompting) for prompting in _promptings(task, days)]
    examples: list[Example] = []
    left_out: dict[str, int] = {}
    for example, as_version_1 in zip(found, earlier, strict=True):
        try:
            tokens = task.tokens(task.prepare(example, tokenizer))
            prompts = {
                one.prompt(as_version_1 if one.prompting.version == 1 else example, tokenizer) for one in known_as
            }
        except Exception as error:  # any failure of a tokenizer or a chat template on one example
            reason = f"no prompt can be made ({type(error).__name__})"
        else:
            # The id of a made example is its question; in a file it may be a line's number.
            known = any(text_fingerprint(prompt) in trained_on for prompt in prompts)
            known |= not task.needs_data and text_fingerprint(example.task, example.id) in trained_on
            too_long = tokens > model.max_position_embeddings
            if not known and not too_long:
                examples.append(example)
                continue
            reason = "trained on" if known else "longer than the model reads"
        left_out[reason] = left_out.get(reason, 0) + 1
    if not examples:
        raise UserError(
            f"none of the {len(found)} examples is left{numbers_left_out(left_out)}; give others with --split or --data"
        )
    return examples, left_out


def numbers_left_out(left_out: dict[str, int]) -> str:
    """The numbers of the examples that are left out, for the end of a sentence."""
    return "".join(f", {number} left out: {reason}" for reason, number in left_out.items())


def days_of(router: Router) -> list[str]:
    """The dates in the prompts of a router's runs; none for a router of an earlier release."""
    noted = router.made.get("days")
    return [day for day in noted if is_day(day)] if isinstance(noted, list) else []


def _promptings(task: Task, days: Sequence[str]) -> list[Prompting]:
    """The settings of the prompts in which an example may have been trained on.

    Either wording, with and without thinking, and any date of the runs.
    """
    kinds = product((1, PROMPT_VERSION), (False, True), sorted({task.prompting.day, *days}, key=str))
    return [Prompting(version=version, thinking=thinking, day=day) for version, thinking, day in kinds]

"""The examples that a menu is of: those of a run, or of a task, in the order of the race."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.engine.loading import load_description
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_json, read_settings
from pipeline.shards.run_config import fingerprint
from pipeline.storage import AnyPath, locate, where_it_is
from pipeline.tasks import DataRequest, Example, Task, TaskOptions, get_task, read_or_explain
from pipeline.tasks.prompting import Prompting
from router.artifact.base_model import BaseModelRef, require_revision
from router.labels.kept_programs import KeptPrograms
from router.menu.candidates import SearchedRun
from router.menu.menu_request import MenuRequest

#: Programs of a run that race, those that are right on most examples.
FREQUENT = 48


@dataclass(frozen=True, kw_only=True)
class MenuExamples:
    """The examples of a menu, and everything that their scoring needs.

    Attributes:
        source: The base model.
        dtype: Precision of the weights; ``auto`` until the actors are placed.
        task: Name of the task.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        prompting: The settings of the prompts.
        examples: The examples, each with its exact prompt, in the order of the race; those at the end are held out.
        num_held_out: Number of held-out examples.
        num_layers: Depth L of the model.
        add_special_tokens: Whether the tokenizer adds special tokens to the prompts.
        found: Programs that a search found right on most examples.
    """

    source: ModelSource
    dtype: str
    task: str
    max_new_tokens: int | None
    task_options: TaskOptions
    prompting: Prompting
    examples: Sequence[Example]
    num_held_out: int
    num_layers: int
    add_special_tokens: bool
    found: Sequence[LayerProgram] = field(default_factory=list)

    @property
    def base(self) -> BaseModelRef:
        """The base model, by name and revision."""
        return BaseModelRef(name=self.source.name, revision=self.source.revision)

    @property
    def num_racing(self) -> int:
        """Number of examples that programs are chosen on."""
        return len(self.examples) - self.num_held_out

    @property
    def data_sha256(self) -> str:
        """Fingerprint of the examples, their prompts included."""
        return fingerprint(list(self.examples))


def menu_examples(request: MenuRequest, *, day: str) -> MenuExamples:
    """The examples of a request, in the order of the race.

    Args:
        request: The menu.
        day: The date in the prompts of a task's examples, as ``Prompting.day`` has it; a run has its own.

    Raises:
        UserError: The examples or the model cannot be found, or are too few.
    """
    found = _of_run(request) if request.task is None else _of_task(request, day)
    in_order = list(found.examples)
    random.Random(f"race {request.seed}").shuffle(in_order)
    in_order = in_order[: request.limit]
    num_held_out = round(request.held_out * len(in_order))
    if num_held_out < 2 or len(in_order) - num_held_out < 2:
        raise UserError(
            f"{len(in_order)} examples are too few: {len(in_order) - num_held_out} to choose programs on and "
            f"{num_held_out} held out; give more, or another --held-out"
        )
    return replace(found, examples=in_order, num_held_out=num_held_out)


def _of_run(request: MenuRequest) -> MenuExamples:
    run: AnyPath = locate(str(request.data))
    searched = SearchedRun.read(run, questions=request.questions)
    settings, notes = read_settings(run), read_json(run / "run.json")
    name = where_it_is(settings["model.name"], notes.get("model_path"))
    base = BaseModelRef(name=name, revision=settings["model.revision"])
    source = resolve_model(request.model or name)
    require_revision(source, base, what="the model that was searched", hint="say where it lies with --model")
    identity = searched.base_labels[0].program
    ranked = [program for program in KeptPrograms.read([run]).ranked if program != identity]
    return MenuExamples(
        source=source,
        dtype=settings["dtype"],
        task=searched.task,
        max_new_tokens=searched.max_new_tokens,
        task_options=searched.task_options,
        prompting=searched.prompting,
        examples=searched.examples,
        num_held_out=0,
        num_layers=identity.num_layers,
        add_special_tokens=bool(notes["loaded_model"]["special_tokens_added"]),
        found=ranked[:FREQUENT],
    )


def _of_task(request: MenuRequest, day: str) -> MenuExamples:
    assert request.task is not None and request.model is not None
    prompting = Prompting(thinking=request.thinking, day=day)
    options = request.task_options.of_run(request.task, None)
    task = get_task(request.task, max_new_tokens=request.max_new_tokens, options=options, prompting=prompting)
    examples = read_or_explain(
        task,
        DataRequest(
            data=request.data,
            split=request.split,
            limit=request.limit,
            seed=request.seed,
            renderings=request.permutations,
        ),
    )
    source = resolve_model(request.model)
    config, tokenizer = load_description(source)
    task.check_tokenizer(tokenizer)
    return MenuExamples(
        source=source,
        dtype="auto",
        task=request.task,
        max_new_tokens=request.max_new_tokens,
        task_options=options,
        prompting=prompting,
        examples=[replace(example, prompt=_prompt(task, example, tokenizer)) for example in examples],
        num_held_out=0,
        num_layers=config.num_hidden_layers,
        add_special_tokens=not (task.chat and tokenizer.chat_template is not None),
    )


def _prompt(task: Task, example: Example, tokenizer: Any) -> str:
    try:
        return task.prompt(example, tokenizer)
    except Exception as error:  # any failure of a chat template on one example
        raise UserError(f"no prompt can be made of example {example.id!r}: {type(error).__name__}: {error}") from None

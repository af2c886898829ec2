"""The examples that a menu is of: those of a run, or of a task, in the order of the race."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.engine.loading import load_description
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.reader import read_json, read_paths, read_settings
from pipeline.shards.run_config import fingerprint
from pipeline.storage import AnyPath, locate, where_it_is
from pipeline.tasks import DataRequest, Example, TaskOptions, get_task, read_or_explain
from pipeline.tasks.prompting import Prompting
from router.artifact.base_model import BaseModelRef, require_revision
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
        left_out: Number of examples that are left out, by the reason.
        num_layers: Depth L of the model.
        add_special_tokens: Whether the tokenizer adds special tokens to the prompts.
        found: Programs that a search found right on most of the examples that are not held out.
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
    left_out: dict[str, int] = field(default_factory=dict)

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
    given = _of_run(request) if request.task is None else _of_task(request, day)
    shuffled = list(given.examples)
    random.Random(f"race {request.seed}").shuffle(shuffled)
    shuffled = shuffled[: request.limit]
    # By the prompt: no prompt is on both sides.
    held_out = [example for example in shuffled if _is_held_out(example, request)]
    racing = [example for example in shuffled if not _is_held_out(example, request)]
    if len(held_out) < 2 or len(racing) < 2:
        raise UserError(
            f"{len(shuffled)} examples are too few: {len(racing)} to choose programs on and {len(held_out)} held out; "
            "give more, or another --held-out"
        )
    found = [] if request.task is not None else _found(locate(str(request.data)), racing)
    return replace(given, examples=[*racing, *held_out], num_held_out=len(held_out), found=found)


def _is_held_out(example: Example, request: MenuRequest) -> bool:
    digest = hashlib.sha256(f"held out {request.seed} {example.prompt}".encode()).digest()
    return int.from_bytes(digest[:8]) < request.held_out * 2**64


def _found(run: AnyPath, racing: Sequence[Example]) -> list[LayerProgram]:
    """The programs that a run's rows say are right on most of the racing examples; no other row counts."""
    rows = read_paths(run)
    rows = rows[rows.correct & rows.example_id.isin([example.id for example in racing])]
    counted = Counter(
        LayerProgram(map(int, program), int(depth))
        for program, depth in zip(rows.program, rows.num_layers, strict=True)
    )
    ranked = sorted(counted, key=lambda program: (-counted[program], len(program), program.layers))
    return [program for program in ranked if not program.is_identity][:FREQUENT]


def _of_run(request: MenuRequest) -> MenuExamples:
    run: AnyPath = locate(str(request.data))
    searched = SearchedRun.read(run, questions=request.questions)
    settings, notes = read_settings(run), read_json(run / "run.json")
    try:
        name = where_it_is(settings["model.name"], notes.get("model_path"))
        base = BaseModelRef(name=name, revision=settings["model.revision"])
        dtype, special_tokens = settings["dtype"], bool(notes["loaded_model"]["special_tokens_added"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{run / 'run.json'} holds no {error}: was anything searched there?") from None
    source = resolve_model(request.model or name)
    require_revision(source, base, what="the model that was searched", hint="say where it lies with --model")
    return MenuExamples(
        source=source,
        dtype=dtype,
        task=searched.task,
        max_new_tokens=searched.max_new_tokens,
        task_options=searched.task_options,
        prompting=searched.prompting,
        examples=searched.examples,
        num_held_out=0,
        num_layers=int(searched.rows.num_layers.iloc[0]),
        add_special_tokens=special_tokens,
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
    kept: list[Example] = []
    left_out: dict[str, int] = {}
    for example in examples:
        try:
            prepared = task.prepare(example, tokenizer)
        except Exception as error:  # any failure of a tokenizer or a chat template on one example
            reason = f"no prompt can be made ({type(error).__name__})"
        else:
            if task.tokens(prepared) <= config.max_position_embeddings:
                kept.append(replace(example, prompt=prepared.prompt))
                continue
            reason = "longer than the model reads"
        left_out[reason] = left_out.get(reason, 0) + 1
    return MenuExamples(
        source=source,
        dtype="auto",
        task=request.task,
        max_new_tokens=request.max_new_tokens,
        task_options=options,
        prompting=prompting,
        examples=kept,
        left_out=left_out,
        num_held_out=0,
        num_layers=config.num_hidden_layers,
        add_special_tokens=not (task.chat and tokenizer.chat_template is not None),
    )

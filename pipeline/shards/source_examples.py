"""The examples of a run, read again from their source: rows hold the prompt, not how an answer is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from pipeline.shards.reader import read_json, read_settings
from pipeline.shards.run_config import fingerprint
from pipeline.storage import AnyPath, where_it_is
from pipeline.tasks import DataRequest, Example, TaskOptions, get_task
from pipeline.tasks.prompting import Prompting, is_day

#: The entries of ``run.json`` that say where a run's examples come from, with their types.
_KINDS = {
    "data": str | None,
    "task": str,
    "split": str,
    "limit": int | None,
    "seed": int,
    "permutations": int,
    "prompt_version": int,
    "max_new_tokens": int | None,
    "data_sha256": str,
}


def examples_of(run: AnyPath, *, data: str | None = None) -> list[Example]:
    """All examples of a run, whether or not they are committed yet.

    Args:
        run: The run folder.
        data: Where the examples are now; None for where the search found them.

    Raises:
        UserError: The examples cannot be read as they were; the message is the reason.
    """
    settings, notes = read_settings(run), read_json(run / "run.json")
    if "imported" in notes:
        raise UserError("the run was converted from another format")
    said = {"permutations": 1, "prompt_version": 1, **settings, "data": notes.get("data") if data is None else data}
    wrong = [name for name, kind in _KINDS.items() if not isinstance(said.get(name), kind)]
    if wrong:
        raise UserError(f"run.json holds no valid {', '.join(wrong)}")
    task = get_task(said["task"], options=options_of(settings))
    if task.needs_data and said["data"] is None:
        raise UserError("run.json does not name their source")
    try:
        request = DataRequest(
            data=said["data"] and where_it_is(said["data"], None if data is not None else notes.get("data_path")),
            split=said["split"],
            limit=said["limit"],
            seed=said["seed"],
            renderings=said["permutations"],
            prompt_version=said["prompt_version"],
        )
        examples = task.read(request)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    if fingerprint(examples) != said["data_sha256"]:
        raise UserError("they have changed")
    return examples


def prompting_of(run: AnyPath) -> Prompting:
    """The settings of a run's prompts, for what its rows do not hold: other renderings, and where an answer begins.

    Answers are placed as a new run places them, so that a replay shows what today's scoring says.
    """
    settings, day = read_settings(run), read_json(run / "run.json").get("day")
    return Prompting(thinking=settings.get("thinking") is True, day=str(day) if is_day(day) else None)


def options_of(settings: Mapping[str, Any]) -> TaskOptions:
    """The options of a run's task.

    Args:
        settings: The run's settings, as ``read_settings`` gives them.

    Raises:
        UserError: An option is unknown, or out of its range.
    """
    return TaskOptions.from_settings(settings)

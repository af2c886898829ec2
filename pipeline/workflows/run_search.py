"""One search, from a request to a run folder: read the inputs, open the folder, join a cluster, run the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.distributed.cluster import check_output, joined_cluster
from pipeline.distributed.coordinator import FEW_PREVIEWED, NUM_PREVIEWED, Coordinator
from pipeline.distributed.installation import installation
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.prior import Prior
from pipeline.search.action_spaces import get_action_space
from pipeline.search.config import NO_PRIOR
from pipeline.shards.calibration import num_calibrating, read_prior
from pipeline.shards.data_card import data_set_card
from pipeline.shards.extension import boundaries, extended
from pipeline.shards.progress import Progress
from pipeline.shards.reader import read_json
from pipeline.shards.run_config import (
    DEFAULT_CALIBRATION,
    SCHEMA_VERSION,
    RunConfig,
    fingerprint,
)
from pipeline.shards.run_folder import RunFolder
from pipeline.storage import AnyPath, absolute_path, without_secrets
from pipeline.tasks import DataRequest, Example, Task, get_task, read_or_explain
from pipeline.tasks.base_answer import BaseAnswer
from pipeline.tasks.prompting import PROMPT_VERSION, Prompting, is_day, today
from pipeline.workflows.search_request import SearchRequest


def run_search(
    request: SearchRequest,
    *,
    command: Sequence[str] = (),
    show: Callable[[Progress], None] = lambda progress: None,
    announce: Callable[[str], None] = lambda line: None,
    preview: Callable[[list[BaseAnswer]], None] | None = None,
) -> Progress:
    """Search every example that is not committed yet.

    Args:
        request: The model, the task and the settings of the search.
        command: The words of the command that asks for it, which ``run.json`` keeps; empty if there is none.
        show: Called with the progress about twice a second.
        announce: Called with a message to the user.
        preview: Called with the base model's answers to the first examples, before the search of a new run begins; None
            for no such answers.

    Returns:
        The progress at the end; ``complete`` if every example is committed.

    Raises:
        UserError: The request is wrong, the run folder cannot be used, or the model cannot be loaded.
        StoppedError: Actors fail one after the other, or a calibration group cannot be searched.
        StorageError: The store does not take a file, or cannot be reached.
        KeyboardInterrupt: The run was interrupted; everything committed stays.
    """
    check_output(request.out)
    folder = RunFolder(request.out)
    stored = folder.peek()
    if stored is not None and folder.is_unused(stored):
        stored = None  # the run begins anew
    kept = _kept_settings(stored)
    request = replace(request, task_options=request.task_options.of_run(request.task, stored))
    try:
        examples = read_examples(request, prompt_version=kept["prompt_version"])
        model = resolve_model(request.model)
        prior = _given_prior(request)
    except UserError:
        raise  # an outage is one too
    except OSError as error:
        where = without_secrets(str(error.filename or "a file"))
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None
    if kept.get("model.revision") == model.revision:
        # The same weights: a trailing slash, or another folder, makes no other model.
        model = replace(model, name=str(kept["model.name"]))
    noted = None if stored is None else read_json(request.out / "run.json").get("day")
    day = str(noted) if is_day(noted) else today()
    config = replace(_config(request, model, examples, prior, kept), day=day)
    extends: str | None = None
    if stored is not None:
        more = extended(config, stored, examples)
        if more is not None:
            config, extends = more, stored["data_sha256"]
        folder.check(config, extends=extends)  # before a cluster is started
    announce("Checking the model; joining or starting a Ray cluster.")
    with joined_cluster(request.resources, model) as placement, closing(folder):
        config = replace(config, device=placement.device, dtype=placement.dtype)
        provenance = {**_provenance(request, model, command, len(examples)), "day": config.day}
        committed = folder.open(config, provenance=provenance, extends=extends, announce=announce)
        if stored is not None and config.extended_at != boundaries(stored):
            known = config.extended_at[-1]
            announce(f"The run is extended: it had {known} examples, {len(examples) - known} are new.")
        _announce_other_versions(request.out, provenance, announce)
        if 0 < len(examples) == num_calibrating(config, len(examples)):
            announce(
                f"All {len(examples)} examples are calibration examples: a larger run fits a prior to its first "
                f"{config.calibration} and searches the others with it. A run as small as this one needs none; --prior "
                "takes that of another run."
            )
        if not get_action_space(request.search.action_space).keeps_order:
            announce(f"{NO_PRIOR.format(space=request.search.action_space)}: all examples are searched without one.")
        folder.clear_failures(committed)
        if prior is not None:
            folder.write_prior(prior)
        coordinator = Coordinator(
            config=config,
            pool=placement.pool,
            examples=examples,
            folder=folder,
            committed=committed,
            show=show,
            preview=None if committed else preview,
            num_previewed=_num_previewed(request),
            stall_seconds=request.stall_seconds,
        )
        resumed = coordinator.progress.resumed_examples
        announce(
            f"{len(examples)} examples of task {config.task}"
            + (f", {resumed} of them committed already" if resumed else "")
            + f"; {placement.describe()}; run folder {folder.root}"
        )
        if resumed == len(examples):
            announce("Every example is committed already: there is nothing to search.")
        try:
            progress = coordinator.run()
        finally:
            folder.write_card(data_set_card(config, coordinator.progress))
        if progress.complete:
            folder.mark_complete()
        return progress


def read_examples(request: SearchRequest, *, prompt_version: int = PROMPT_VERSION) -> list[Example]:
    """The request's examples.

    Args:
        request: The request.
        prompt_version: Version of the prompts' wordings.

    Raises:
        UserError: The task or the data is wrong.
    """
    prompting = Prompting(version=prompt_version, thinking=request.thinking)
    task = _task(request, prompting)
    if request.limit is not None and request.limit < 1:
        raise UserError(f"--limit must be at least 1, got {request.limit}")
    return read_or_explain(
        task,
        DataRequest(
            data=request.data,
            split=request.split,
            limit=request.limit,
            seed=request.seed,
            renderings=request.permutations,
            prompt_version=prompt_version,
        ),
    )


def _kept_settings(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings that a run keeps from its first call on, whatever a later call would choose.

    Args:
        stored: The settings of the run that is resumed; None for a new run, whose device and dtype are ``auto`` until
            its actors are placed.
    """
    if stored is None:
        new = {"schema_version": SCHEMA_VERSION, "prompt_version": PROMPT_VERSION}
        return {**new, "device": "auto", "dtype": "auto"}
    return {"schema_version": 1, "prompt_version": 1, **stored}


def _task(request: SearchRequest, prompting: Prompting | None = None) -> Task:
    return get_task(
        request.task, max_new_tokens=request.max_new_tokens, options=request.task_options, prompting=prompting
    )


def _given_prior(request: SearchRequest) -> Prior | None:
    """The prior that the request names, if it names one; without margins if the task's margins do not compare."""
    if request.prior is None:
        return None
    prior = read_prior(request.prior)
    return prior if _task(request).scoring.margins_compare else replace(prior, margin_scale=None)


def _config(
    request: SearchRequest,
    model: ModelSource,
    examples: list[Example],
    prior: Prior | None,
    kept: Mapping[str, Any],
) -> RunConfig:
    """The run's settings.

    Args:
        request: The request.
        model: The base model.
        examples: The run's examples.
        prior: The prior that the request names.
        kept: The settings that the run keeps from its first call on; see ``_kept_settings``.
    """
    task = _task(request)
    calibration = DEFAULT_CALIBRATION if request.calibration is None else request.calibration
    if not get_action_space(request.search.action_space).keeps_order:
        calibration = 0
    search = request.search if task.scoring.margins_compare else replace(request.search, margin_scale=None)
    return RunConfig(
        schema_version=kept["schema_version"],
        prompt_version=kept["prompt_version"],
        thinking=request.thinking,
        model=model,
        task=request.task,
        data=request.data,
        data_sha256=fingerprint(examples),
        split=request.split,
        limit=request.limit,
        extended_at=boundaries(kept),
        max_new_tokens=request.max_new_tokens,
        task_options=request.task_options,
        search=search,
        seed=request.seed,
        keep=request.keep,
        reverify=request.reverify,
        permutations=request.permutations,
        group_size=request.group_size,
        leaves=task.scoring.leaves if request.leaves is None else request.leaves,
        calibration=0 if prior is not None else calibration,
        prior_sha256=None if prior is None else prior.fingerprint,
        cache_gib=request.cache_gib,
        device=str(kept.get("device")),
        dtype=str(kept.get("dtype")),
        cpus_per_actor=request.resources.cpus_per_actor,
    )


def _provenance(
    request: SearchRequest, model: ModelSource, command: Sequence[str], num_examples: int
) -> dict[str, Any]:
    """What ``run.json`` notes beside the settings: no more than where things were, and what ran."""
    noted = {
        "data": request.data and without_secrets(request.data),
        "data_path": absolute_path(request.data),
        "model_path": absolute_path(model.location),
        "examples": num_examples,
        "versions": {"drllm-pipeline": __version__, **installation().libraries},
    }
    if not command:
        return noted
    return {
        **noted,
        "command": [without_secrets(word) for word in command],
        "working_folder": str(Path.cwd()),
    }


def _announce_other_versions(out: AnyPath, provenance: dict[str, Any], announce: Callable[[str], None]) -> None:
    """Warn if a run is resumed with other library versions: their rounding may differ in the last bit."""
    before, now = read_json(out / "run.json").get("versions"), provenance["versions"]
    if isinstance(before, dict):
        changed = [f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]]
        if changed:
            announce(
                f"Warning: the run was begun with other versions ({'; '.join(changed)}); margins may round differently."
            )


def _num_previewed(request: SearchRequest) -> int:
    """Examples that the base model answers first: few where it writes at length, or the search would seem to stand."""
    task = get_task(request.task, max_new_tokens=request.max_new_tokens, options=request.task_options)
    return NUM_PREVIEWED if task.scoring.leaves == 1 else FEW_PREVIEWED

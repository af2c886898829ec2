"""One search, from a request to a run folder: read the inputs, open the folder, join a cluster, run the coordinator."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline import __version__
from pipeline.distributed.cluster import check_output, joined_cluster
from pipeline.distributed.coordinator import Coordinator
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.prior import Prior
from pipeline.search.action_spaces import get_action_space
from pipeline.search.config import NO_PRIOR
from pipeline.shards.calibration import calibration_groups, read_prior
from pipeline.shards.data_card import data_set_card
from pipeline.shards.progress import Progress
from pipeline.shards.reader import read_json
from pipeline.shards.run_config import (
    DEFAULT_CALIBRATION,
    SCHEMA_VERSION,
    RunConfig,
    fingerprint,
)
from pipeline.shards.run_folder import RunFolder, check_settings
from pipeline.storage import AnyPath, without_secrets
from pipeline.tasks import DataRequest, Example, get_task, read_or_explain
from pipeline.workflows.search_request import SearchRequest

_NOTED_PACKAGES = ("torch", "transformers", "ray", "pyarrow", "tokenizers", "math-verify")


def run_search(
    request: SearchRequest,
    *,
    show: Callable[[Progress], None] = lambda progress: None,
    announce: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Search every example that is not committed yet.

    Args:
        request: The model, the task and the settings of the search.
        show: Called with the progress about twice a second.
        announce: Called with a message to the user.

    Returns:
        The progress at the end; ``complete`` if every example is committed.

    Raises:
        UserError: The request is wrong, the run folder cannot be used, or the model cannot be loaded.
        StoppedError: Actors fail one after the other, or a calibration group cannot be searched.
        StorageError: The store does not take a file, or cannot be reached.
        KeyboardInterrupt: The run was interrupted; everything committed stays.
    """
    check_output(request.out)
    try:
        examples = read_examples(request)
        model = resolve_model(request.model)
        prior = _given_prior(request)
    except UserError:
        raise  # an outage is one too
    except OSError as error:
        where = without_secrets(str(error.filename or "a file"))
        raise UserError(f"{where} cannot be read: {error.strerror or error}") from None
    folder = RunFolder(request.out)
    stored = folder.peek()
    config = _config(request, model, examples, prior, stored)
    if stored is not None:
        check_settings(stored, config)  # before a cluster is started
    announce("Checking the model; joining or starting a Ray cluster.")
    with joined_cluster(request.resources, model) as placement, closing(folder):
        config = replace(config, device=placement.device, dtype=placement.dtype)
        provenance = _provenance(request)
        committed = folder.open(config, provenance=provenance, announce=announce)
        _announce_other_versions(request.out, provenance, announce)
        calibrating = len(calibration_groups(config.calibration, config.group_size)) * config.group_size
        if 0 < len(examples) <= calibrating:
            announce(
                f"All {len(examples)} examples are in the calibration set, searched without a prior; a search of more "
                f"than {calibrating} fits a prior to them, and --prior takes the prior of another run."
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
            stall_seconds=request.stall_seconds,
        )
        resumed = coordinator.progress.resumed_examples
        announce(
            f"{len(examples)} examples of task {config.task}"
            + (f", {resumed} of them committed already" if resumed else "")
            + f"; {placement.describe()}; run folder {folder.root}"
        )
        try:
            progress = coordinator.run()
        finally:
            folder.write_card(data_set_card(config, coordinator.progress))
        if progress.complete:
            folder.mark_complete()
        return progress


def read_examples(request: SearchRequest) -> list[Example]:
    """The request's examples.

    Raises:
        UserError: The task or the data is wrong.
    """
    task = get_task(request.task, max_new_tokens=request.max_new_tokens)
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
        ),
    )


def _given_prior(request: SearchRequest) -> Prior | None:
    """The prior that the request names, if it names one; without margins if the task's margins do not compare."""
    if request.prior is None:
        return None
    prior = read_prior(request.prior)
    return prior if get_task(request.task).scoring.margins_compare else replace(prior, margin_scale=None)


def _config(
    request: SearchRequest,
    model: ModelSource,
    examples: list[Example],
    prior: Prior | None,
    stored: Mapping[str, Any] | None,
) -> RunConfig:
    """The run's settings.

    Args:
        request: The request.
        model: The base model.
        examples: The run's examples.
        prior: The prior that the request names.
        stored: The settings of the run that is resumed, whose device, dtype and schema version they take; None for a
            new run, whose device and dtype are ``auto`` until its actors are placed.
    """
    stored = {"device": "auto", "dtype": "auto"} if stored is None else stored
    task = get_task(request.task)
    calibration = DEFAULT_CALIBRATION if request.calibration is None else request.calibration
    if not get_action_space(request.search.action_space).keeps_order:
        calibration = 0
    search = request.search if task.scoring.margins_compare else replace(request.search, margin_scale=None)
    return RunConfig(
        schema_version=stored.get("schema_version", SCHEMA_VERSION),
        model=model,
        task=request.task,
        data=request.data,
        data_sha256=fingerprint(examples),
        split=request.split,
        limit=request.limit,
        max_new_tokens=request.max_new_tokens,
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
        device=str(stored.get("device")),
        dtype=str(stored.get("dtype")),
        cpus_per_actor=request.resources.cpus_per_actor,
    )


def _provenance(request: SearchRequest) -> dict[str, Any]:
    versions = {"drllm-pipeline": __version__, "python": platform.python_version()}
    for package in _NOTED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"data": request.data and without_secrets(request.data), "versions": versions}


def _announce_other_versions(out: AnyPath, provenance: dict[str, Any], announce: Callable[[str], None]) -> None:
    """Warn if a run is resumed with other library versions: their rounding may differ in the last bit."""
    before, now = read_json(out / "run.json").get("versions"), provenance["versions"]
    if isinstance(before, dict):
        changed = [f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]]
        if changed:
            announce(
                f"Warning: the run was begun with other versions ({'; '.join(changed)}); margins may round differently."
            )

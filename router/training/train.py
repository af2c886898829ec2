"""One training from runs to a router folder: label → extract → fit → judge → write, with data between the steps.

ROUTER/config.json, model.safetensors, README.md   the router; see ``router.routed.checkpoint``
ROUTER/metrics.jsonl                               a record for each epoch
ROUTER/tensorboard/                                the same for TensorBoard
ROUTER/training.png                                loss curves, confusion matrix, and the kind's own plots
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.distributed.cluster import check_output
from pipeline.engine.loading import cache_folder, load_description
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from pipeline.storage import absolute_path, is_there, uploaded
from router.artifact.base_model import BaseModelRef, lasting_name
from router.artifact.folder import PICTURE_FILE, check_output_folder, make_early, remove_training_records
from router.fitting import EpochRecord
from router.heads.head import Head
from router.heads.kind import HeadKind, TrainedHead
from router.heads.registry import kind_of
from router.heads.static.static_head import StaticHead
from router.labels.from_runs import RunData, read_runs
from router.labels.labelled import TrainingLabels
from router.routed.checkpoint import Router
from router.training.epoch_writer import EpochWriter
from router.training.held_out_judgement import HeldOutJudgement, judge_on_held_out
from router.training.model_service import FrozenModelService
from router.training.train_request import TrainRequest

#: Held-out examples below which their figures are luck.
FEW_HELD_OUT = 10


@dataclass(frozen=True, kw_only=True)
class TrainedRouter:
    """The end of a training.

    Attributes:
        router: The router, as it was written.
        head: The outcome of the fit; None where there was nothing to learn, and the router runs one program.
        judgement: The router beside one program for all prompts; None where the examples cannot be read again.
    """

    router: Router
    head: TrainedHead | None
    judgement: HeldOutJudgement | None


def train(
    request: TrainRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> TrainedRouter:
    """Train a router on path data sets, judge it on held-out examples, and write it.

    Where the labels leave nothing to learn, the router runs the best program that is known for all prompts.

    Args:
        request: The training.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.
        on_epoch: Receives every epoch's record.

    Raises:
        UserError: Something in the request, or in the data sets, is wrong.
        KeyboardInterrupt: The training was interrupted; features that were computed are kept.
    """
    _check_output(request)
    kind = kind_of(request.head)
    runs = read_runs(request.data)
    service = FrozenModelService(
        base=runs.base,
        location=request.base,
        dtype=runs.dtype,
        add_special_tokens=runs.add_special_tokens,
        resources=request.resources,
        folder=request.features or cache_folder() / "features",
        announce=announce,
        show=show,
    )
    try:
        # The base model is needed for the first two steps alone; Ray starts where the service has to compute.
        with service:
            labels = kind.label(runs, request, request.head, service)
            make_early(request.out, "router")
            if labels.nothing_to_learn is None:
                features = kind.extract(labels, request.head, service)
        if labels.nothing_to_learn is not None:
            announce(f"There is nothing to learn: {labels.nothing_to_learn}.")
            with service:
                judgement = judge_on_held_out(None, labels, request, service, show=show)
            router = _static_router(request, runs, labels, judgement)
            remove_training_records(request.out)
            router.save(request.out)
            return TrainedRouter(router=router, head=None, judgement=judgement)
        announce(f"Training {labels.description} on {len(labels.train)} examples, {len(labels.held_out)} held out.")
        if len(labels.held_out) < FEW_HELD_OUT:
            announce(
                f"Warning: figures on {len(labels.held_out)} held-out examples say little; search more examples, or "
                "hold out more with --held-out."
            )
        remove_training_records(request.out)
        with uploaded(request.out) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            with EpochWriter(request.head, folder, on_epoch, wandb_project=request.wandb) as writer:
                trained: TrainedHead = kind.fit(labels, features, request.head, writer.write)
            draw(kind, trained, folder / PICTURE_FILE, announce)
        router = _router(request, runs, labels, trained)
        with service:
            judgement = judge_on_held_out(router, labels, request, service, show=show)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"no router can be trained on {', '.join(map(str, request.data))}: {error}") from None
    except OSError as error:
        raise UserError(f"router folder {request.out} cannot be written: {error.strerror or error}") from None
    router = judged(router, judgement)
    router.save(request.out)
    return TrainedRouter(router=router, head=trained, judgement=judgement)


def _check_output(request: TrainRequest) -> None:
    """Refuse a folder or an option that would fail only at the end.

    Raises:
        UserError: The folder holds something else, or a router that is not to be replaced, or a package is missing.
    """
    check_output(request.out)
    if is_there(request.out / "run.json"):
        raise UserError(f"{request.out} is a run folder; give another one to --out")
    check_output_folder(request.out, "router", overwrite=request.overwrite)
    check_wandb(request.wandb)


def check_wandb(project: str | None) -> None:
    """Refuse a project of Weights & Biases where its package is missing.

    Raises:
        UserError: It is.
    """
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs its package: pip install 'drllm-pipeline[wandb]'")


def draw(kind: HeadKind[Any, Any, Any, Any], trained: TrainedHead, file: Path, announce: Callable[[str], None]) -> None:
    """Draw the training; a picture that cannot be written does not stop the router from being written."""
    try:
        kind.draw(trained, file)
    except OSError as error:
        announce(f"The picture cannot be written: {error.strerror or error}")


def _router(request: TrainRequest, runs: RunData, labels: TrainingLabels, trained: TrainedHead) -> Router:
    """The router with its settings and metrics."""
    made = {**trained.made, **{f"held_out_{name}": trained.best[name] for name in ("macro_f1", "accuracy")}}
    return _of_training(request, runs, labels, trained.head, trained.sample, made)


def _static_router(
    request: TrainRequest, runs: RunData, labels: TrainingLabels, judgement: HeldOutJudgement | None
) -> Router:
    """The router that runs the best program that is known for all prompts."""
    program = LayerProgram.identity(runs.num_layers) if judgement is None else judgement.best_program
    head = static_head(program, request.base or runs.base.name)
    made = {"reason": f"there was nothing to learn: {labels.nothing_to_learn}"}
    return judged(_of_training(request, runs, labels, head, torch.ones(1), made), judgement)


def static_head(program: LayerProgram, base: str) -> StaticHead:
    """The head of a router that runs one program of a base model for all prompts.

    Raises:
        UserError: The base model is not there.
    """
    return StaticHead(program, load_description(resolve_model(base))[0].hidden_size)


def judged(router: Router, judgement: HeldOutJudgement | None) -> Router:
    """The router with its judgement, and with a fallback where one program is worth more."""
    if judgement is None:
        return router
    return replace(
        router,
        made=router.made | {"judgement": judgement.to_settings()},
        fallback=judgement.best_program
        if judgement.router_is_worse and not isinstance(router.head, StaticHead)
        else None,
    )


def _of_training(
    request: TrainRequest,
    runs: RunData,
    labels: TrainingLabels,
    head: Head,
    sample: torch.Tensor,
    made: dict[str, Any],
) -> Router:
    return Router(
        base=BaseModelRef(name=lasting_name(request.base or runs.base.name), revision=runs.base.revision),
        head=head,
        held_out=sample,
        trained_on=runs.fingerprints,
        add_special_tokens=runs.add_special_tokens,
        made={
            "data": [str(run.resolve()) for run in request.data],
            "labels": request.labels,
            "layer_price": request.price,
            "questions": len(labels.train),
            "held_out_questions": len(labels.held_out),
            "left_out": labels.left_out,
            "days": sorted(runs.days),
            **({"questions_at": [absolute_path(one) or one for one in request.questions]} if request.questions else {}),
            **made,
        },
    )

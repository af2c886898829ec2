"""One training from runs to a router folder, in four steps with data between them: label → extract → fit → write.

ROUTER/config.json, model.safetensors, README.md   the router; see ``router.routed.checkpoint``
ROUTER/metrics.jsonl                               a record for each epoch
ROUTER/tensorboard/                                the same for TensorBoard
ROUTER/training.png                                loss curves, confusion matrix, and the kind's own plots
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.distributed.cluster import check_output
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.storage import absolute_path, is_there, uploaded
from router.artifact.base_model import BaseModelRef, lasting_name
from router.artifact.folder import check_output_folder, make_early
from router.fitting import EpochRecord
from router.heads.kind import HeadKind, TrainedHead
from router.heads.registry import kind_of
from router.labels.from_runs import RunData, read_runs
from router.labels.labelled import TrainingLabels
from router.routed.checkpoint import Router
from router.training.model_service import FrozenModelService
from router.training.train_request import TrainRequest

#: Held-out examples below which their figures are luck.
FEW_HELD_OUT = 10
METRICS_FILE = "metrics.jsonl"
PICTURE_FILE = "training.png"


def train(
    request: TrainRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
) -> TrainedHead:
    """Train a router on path data sets and write it.

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
            features = kind.extract(labels, request.head, service)
        announce(f"Training {labels.description} on {len(labels.train)} examples, {len(labels.held_out)} held out.")
        if len(labels.held_out) < FEW_HELD_OUT:
            announce(
                f"Warning: figures on {len(labels.held_out)} held-out examples say little; search more examples, or "
                "hold out more with --held-out."
            )
        with uploaded(request.out) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            with EpochWriter(request, folder, on_epoch) as writer:
                trained: TrainedHead = kind.fit(labels, features, request.head, writer.write)
            _draw(kind, trained, folder / PICTURE_FILE, announce)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"no router can be trained on {', '.join(map(str, request.data))}: {error}") from None
    except OSError as error:
        raise UserError(f"router folder {request.out} cannot be written: {error.strerror or error}") from None
    _router(request, runs, labels, trained).save(request.out)
    return trained


def _check_output(request: TrainRequest) -> None:
    """Refuse a folder or an option that would fail only at the end.

    Raises:
        UserError: The folder holds something else, or a router that is not to be replaced, or a package is missing.
    """
    check_output(request.out)
    if is_there(request.out / "run.json"):
        raise UserError(f"{request.out} is a run folder; give another one to --out")
    check_output_folder(request.out, "router", overwrite=request.overwrite)
    if request.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs its package: pip install 'drllm-pipeline[wandb]'")


def _draw(
    kind: HeadKind[Any, Any, Any, Any], trained: TrainedHead, file: Path, announce: Callable[[str], None]
) -> None:
    """Draw the training; a picture that cannot be written does not stop the router from being written."""
    try:
        kind.draw(trained, file)
    except OSError as error:
        announce(f"The picture cannot be written: {error.strerror or error}")


def _router(request: TrainRequest, runs: RunData, labels: TrainingLabels, trained: TrainedHead) -> Router:
    """The router with its settings and metrics, as it is written."""
    return Router(
        base=BaseModelRef(name=lasting_name(request.base or runs.base.name), revision=runs.base.revision),
        head=trained.head,
        held_out=trained.sample,
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
            **trained.made,
            **{f"held_out_{name}": trained.best[name] for name in ("macro_f1", "accuracy")},
        },
    )


class EpochWriter(ExitStack):
    """Writes every epoch's record to files, and to Weights & Biases where a project is named; a context manager.

    Args:
        request: The training.
        folder: Folder of the files.
        on_epoch: Receives every record first.
    """

    def __init__(self, request: TrainRequest, folder: Path, on_epoch: Callable[[EpochRecord], None]) -> None:
        super().__init__()
        self._on_epoch = on_epoch
        from torch.utils.tensorboard import SummaryWriter

        self._lines = self.enter_context((folder / METRICS_FILE).open("w", encoding="utf-8"))
        self._board = SummaryWriter(str(folder / "tensorboard"))
        self.callback(self._board.close)
        self._wandb_run: Any = None
        if request.wandb is not None:
            import wandb

            self._wandb_run = wandb.init(project=request.wandb, config=asdict(request.head))
            self.callback(self._wandb_run.finish)

    def write(self, record: EpochRecord) -> None:
        """Write the record of one epoch to every log, and pass it to ``on_epoch``."""
        self._on_epoch(record)
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in record.items():
            self._board.add_scalar(name, value, int(record["epoch"]))
        if self._wandb_run is not None:
            self._wandb_run.log(record)

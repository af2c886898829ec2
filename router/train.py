"""One training from path data sets to a router folder: labels, features, fit, what is written down.

ROUTER/config.json, model.safetensors, README.md   the router; see ``router.checkpoint``
ROUTER/metrics.jsonl                               a record for each epoch
ROUTER/tensorboard/                                the same for TensorBoard
ROUTER/training.png                                loss curves, scores, confusion matrix
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster import Resources, check_output
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from router.base import BaseModel
from router.checkpoint import Router
from router.features import FeatureStore
from router.fit import CLASSES, FitConfig, Fitted, fit
from router.folder import check_folder
from router.labels import Labelled, LabelledData, is_held_out, read_labels
from router.model import RouterConfig
from router.plots import draw_training
from router.workshop import Workshop

METRICS_FILE = "metrics.jsonl"
PICTURE_FILE = "training.png"


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What ``drllm-pipeline train`` was asked for.

    Raises:
        UserError: A field is out of its range.
    """

    data: tuple[Path, ...]
    """Run folders."""
    out: Path
    """Router folder."""
    base: str | None = None
    """Where the base model lies, if not where it was searched."""
    labels: str = "expected"
    """How a question's label is chosen; see ``router.labels.CHOICES``."""
    layer_price: float = 0.01
    """What a layer costs a label: right answers a question where they are ``expected``, nats in a consensus."""
    held_out: float = 0.1
    """Share of the questions that are held out."""
    num_windows: int = 8
    """Windows that a prompt is cut into."""
    width: int = 128
    """Hidden units of a router."""
    fit: FitConfig = field(default_factory=FitConfig)
    """How routers are fitted."""
    features: Path | None = None
    """Where features are kept; None for the user's cache folder."""
    resources: Resources = field(default_factory=Resources)
    """What actors that read prompts run on."""
    wandb: str | None = None
    """Project at Weights & Biases that is told of every epoch; None for none."""

    def __post_init__(self) -> None:
        if not self.data:
            raise UserError("--data needs at least one run folder")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out must be between 0 and 1, got {self.held_out:g}")
        for name, value in (("windows", self.num_windows), ("width", self.width)):
            if value < 1:
                raise UserError(f"--{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class StoredRows:
    """Labelled rows whose features a store has."""

    store: FeatureStore
    rows: Sequence[Labelled]
    counts: np.ndarray[Any, Any]

    @classmethod
    def of(cls, store: FeatureStore, rows: Sequence[Labelled]) -> StoredRows:
        """The rows with their labels as an array."""
        return cls(store, rows, np.array([row.counts for row in rows], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def features(self, indices: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return self.store.read([self.rows[index] for index in indices])


def train(
    request: TrainRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
) -> Fitted:
    """Train a router on path data sets and write it.

    Args:
        request: What to do.
        announce: Told, in a line each, what is about to happen.
        show: Told what is being done, how much of it is done, of how much.
        on_epoch: Told of every epoch's record.

    Raises:
        UserError: Something in the request, or in the data sets, is wrong.
        KeyboardInterrupt: It was interrupted; features that were computed stay.
    """
    check_output(request.out)
    if (request.out / "run.json").exists():
        raise UserError(f"{request.out} is a run folder; give another one to --out")
    check_folder(request.out, "router")
    if request.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs its package: pip install 'drllm-pipeline[wandb]'")
    data = read_labels(request.data, choice=request.labels, layer_price=request.layer_price)
    folder = request.features or cache_folder() / "features"
    store = FeatureStore(
        folder,
        revision=data.base.revision,
        dtype=data.dtype,
        num_windows=request.num_windows,
        add_special_tokens=data.add_special_tokens,
    )
    workshop = Workshop(
        base=data.base,
        location=request.base,
        dtype=data.dtype,
        resources=request.resources,
        store=store,
        announce=announce,
        show=show,
    )
    with workshop:
        if request.labels == "expected":
            data = _expected(data, request, workshop, folder / "verdicts")
        announce(_described(data))
        learnt, held_out = _split(data, request)
        _check_classes(learnt, request)
        try:
            request.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"router folder {request.out} cannot be written: {error.strerror or error}") from None
        workshop.fill(data.rows)
    first = store.read(data.rows[:1])
    size = RouterConfig(
        num_layers=data.num_layers,
        hidden_size=first.shape[-1],
        num_windows=request.num_windows,
        width=request.width,
    )
    announce(f"Training {data.num_layers} routers on {len(learnt)} questions, {len(held_out)} held out.")
    try:
        with ExitStack() as closing:
            writers = [on_epoch, *_metrics_writers(request, closing)]

            def write(record: dict[str, float]) -> None:
                for writer in writers:
                    writer(record)

            fitted = fit(
                StoredRows.of(store, learnt),
                StoredRows.of(store, held_out),
                size,
                request.fit,
                on_epoch=write,
            )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"the routers cannot be trained on {_names(request.data)}: {error}") from None
    except OSError as error:
        raise UserError(f"router folder {request.out} cannot be written: {error.strerror or error}") from None
    router = Router(
        base=_lasting(data.base, request.base),
        routers=fitted.routers,
        held_out=fitted.held_out,
        trained_on=data.marks,
        add_special_tokens=data.add_special_tokens,
        made={
            "data": [str(run.resolve()) for run in request.data],
            "labels": request.labels,
            "layer_price": request.layer_price,
            "questions": len(learnt),
            "held_out_questions": len(held_out),
            "left_out": data.left_out,
            "fit": asdict(request.fit),
            **{f"held_out_{name}": fitted.best[name] for name in ("macro_f1", "accuracy", "layers")},
        },
    )
    router.save(request.out)
    try:
        draw_training(fitted, request.out / PICTURE_FILE)
    except OSError as error:
        announce(f"The picture cannot be written: {error.strerror or error}")
    return fitted


def _lasting(base: BaseModel, given: str | None) -> BaseModel:
    """The base model by a name that holds in any working directory."""
    name = given or base.name
    path = Path(name).expanduser()
    return BaseModel(name=str(path.resolve()) if path.exists() else name, revision=base.revision)


def _described(data: LabelledData) -> str:
    """What the data sets hold, in a line."""
    by_task: dict[str, int] = {}
    for row in data.rows:
        by_task[row.task] = by_task.get(row.task, 0) + 1
    counts = np.array([row.counts for row in data.rows])
    shares = ", ".join(
        f"{name} {100 * (counts == number).mean():.1f} %" for number, name in enumerate(("skip", "execute", "repeat"))
    )
    left_out = "".join(f"; left out, {reason}: {number}" for reason, number in data.left_out.items())
    tasks = ", ".join(f"{number} {task}" for task, number in by_task.items())
    different = len({row.counts for row in data.rows})
    fixed = " Every question has the same one: the routers will always choose it." if different == 1 else ""
    said = (
        f"{len(data.rows)} questions ({tasks}) of {data.base.name}; {different} different labels: {shares}{left_out}."
    )
    return said + fixed


def _expected(data: LabelledData, request: TrainRequest, workshop: Workshop, verdicts: Path) -> LabelledData:
    """The same data with the labels that its questions should expect most of; a question of two runs counts once."""
    rows: dict[tuple[str, str], Labelled] = {}
    for run in request.data:
        menu = workshop.menu(run, verdicts, layer_price=request.layer_price)
        for row in menu.rows:
            rows.setdefault((row.example_id, row.prompt), row)
        workshop.announce(
            f"The labels of {run}, from a menu of {len(menu.programs)} programs, are right on "
            f"{100 * menu.right:.1f} % of the questions with {menu.layers:.2f} layers, the untouched model on "
            f"{100 * menu.base_right:.1f} %."
        )
    return replace(data, rows=list(rows.values()), left_out={})


def _split(data: LabelledData, request: TrainRequest) -> tuple[list[Labelled], list[Labelled]]:
    """The rows to learn from and those to stop by.

    Raises:
        UserError: They are too few.
    """
    held_out = [row for row in data.rows if is_held_out(row, request.held_out, seed=request.fit.seed)]
    learnt = [row for row in data.rows if not is_held_out(row, request.held_out, seed=request.fit.seed)]
    if not held_out or not learnt:
        raise UserError(
            f"{len(data.rows)} questions are too few: {len(learnt)} to train on and {len(held_out)} held out; "
            "search more of them, or hold out another share with --held-out"
        )
    return learnt, held_out


def _check_classes(learnt: list[Labelled], request: TrainRequest) -> None:
    """Refuse labels that are all of one class, before prompts are read along them.

    Raises:
        UserError: They are.
    """
    if len({count for row in learnt for count in row.counts}) < 2:
        raise UserError(
            f"every label of {_names(request.data)} is '{CLASSES[learnt[0].counts[0]]}': there is nothing to learn; "
            "search with more --simulations, keep more programs, or raise --layer-price"
        )


def _metrics_writers(request: TrainRequest, closing: ExitStack) -> list[Callable[[dict[str, float]], None]]:
    """Where every epoch's record goes."""
    from torch.utils.tensorboard import SummaryWriter

    lines = closing.enter_context((request.out / METRICS_FILE).open("w", encoding="utf-8"))
    board = SummaryWriter(str(request.out / "tensorboard"))
    closing.callback(board.close)

    def to_jsonl(record: dict[str, float]) -> None:
        lines.write(json.dumps(record) + "\n")
        lines.flush()

    def to_tensorboard(record: dict[str, float]) -> None:
        for name, value in record.items():
            board.add_scalar(name, value, int(record["epoch"]))

    writers: list[Callable[[dict[str, float]], None]] = [to_jsonl, to_tensorboard]
    if request.wandb is not None:
        import wandb

        run = wandb.init(project=request.wandb, config=asdict(request.fit))
        closing.callback(run.finish)
        writers.append(run.log)
    return writers


def _names(runs: Sequence[Path]) -> str:
    return ", ".join(map(str, runs))

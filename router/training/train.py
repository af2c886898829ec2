"""One training from path data sets to a router folder: labels, what the model makes of prompts, fit, what is written.

ROUTER/config.json, model.safetensors, README.md   the router; see ``router.routed.checkpoint``
ROUTER/metrics.jsonl                               a record for each epoch
ROUTER/tensorboard/                                the same for TensorBoard
ROUTER/training.png                                loss curves, confusion matrix, and what else a head has to show
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.distributed.cluster import check_output
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.storage import AnyPath, is_there, uploaded
from router.artifact.base_model import BaseModelRef
from router.artifact.folder import check_folder, make_early
from router.features.prompt_template import Form
from router.features.window_features import FeatureStore
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.early_exit.exit_labels import exit_labels
from router.heads.early_exit.train import train_early_exit
from router.heads.head import Learnt
from router.heads.per_layer.fit import CLASSES
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.heads.per_layer.train import train_per_layer
from router.labels.from_runs import read_labels
from router.labels.labelled import Labelled, LabelledData, is_held_out
from router.menu.expected_labels import expected_labels
from router.routed.checkpoint import Router
from router.training.model_service import FrozenModelService
from router.training.train_request import TrainRequest

METRICS_FILE = "metrics.jsonl"
PICTURE_FILE = "training.png"
#: Windows of what labels are expected by, where no router reads any.
_SUMMARY_WINDOWS = 8


#: From whoever is told of every epoch's record to what was learnt.
Learn = Callable[[Callable[[dict[str, float]], None]], Learnt]


def train(
    request: TrainRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
) -> Learnt:
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
    if is_there(request.out / "run.json"):
        raise UserError(f"{request.out} is a run folder; give another one to --out")
    check_folder(request.out, "router")
    if request.wandb is not None and importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs its package: pip install 'drllm-pipeline[wandb]'")
    data = read_labels(request.data, choice=request.labels, layer_price=request.layer_price)
    store = FeatureStore(
        request.features or cache_folder() / "features",
        revision=data.base.revision,
        dtype=data.dtype,
        num_windows=request.head.num_windows if isinstance(request.head, PerLayerRequest) else _SUMMARY_WINDOWS,
        add_special_tokens=data.add_special_tokens,
    )
    workshop = FrozenModelService(
        base=data.base,
        location=request.base,
        dtype=data.dtype,
        resources=request.resources,
        store=store,
        announce=announce,
        show=show,
    )
    try:
        with workshop:
            prepared = (_per_layer if isinstance(request.head, PerLayerRequest) else _depth)(data, request, workshop)
        data = prepared.data
        announce(f"Training {prepared.what} on {prepared.learnt} questions, {prepared.held_out} held out.")
        with uploaded(request.out) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as closing:
                writers = [on_epoch, *_metrics_writers(request, folder, closing)]

                def write(record: dict[str, float]) -> None:
                    for writer in writers:
                        writer(record)

                learnt = prepared.learn(write)
            try:
                learnt.draw(folder / PICTURE_FILE)
            except OSError as error:
                announce(f"The picture cannot be written: {error.strerror or error}")
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"no router can be trained on {_names(request.data)}: {error}") from None
    except OSError as error:
        raise UserError(f"router folder {request.out} cannot be written: {error.strerror or error}") from None
    router = Router(
        base=_lasting(data.base, request.base),
        head=learnt.head,
        held_out=learnt.sample,
        trained_on=data.marks,
        add_special_tokens=data.add_special_tokens,
        made={
            "data": [str(run.resolve()) for run in request.data],
            "labels": request.labels,
            "layer_price": request.layer_price,
            "questions": prepared.learnt,
            "held_out_questions": prepared.held_out,
            "left_out": data.left_out,
            **learnt.made,
            **{f"held_out_{name}": learnt.best[name] for name in ("macro_f1", "accuracy")},
        },
    )
    router.save(request.out)
    return learnt


# -- the two heads -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A training for which no model is needed any more.

    Attributes:
        data: What is learnt from.
        what: Says what is trained.
        learnt: Questions to learn from.
        held_out: Questions to stop by.
        learn: Does it.
    """

    data: LabelledData
    what: str
    learnt: int
    held_out: int
    learn: Learn


def _per_layer(data: LabelledData, request: TrainRequest, workshop: FrozenModelService) -> _Prepared:
    """Routers of all layers: labels, and features along them."""
    assert isinstance(request.head, PerLayerRequest)
    head = request.head
    if request.labels == "expected":
        data = _expected(data, request, workshop)
    workshop.announce(_described(data))
    learnt, held_out = _split(data, request)
    if len({count for row in learnt for count in row.counts}) < 2:
        raise UserError(
            f"every label of {_names(request.data)} is '{CLASSES[learnt[0].counts[0]]}': there is nothing to learn; "
            "search with more --simulations, keep more programs, or raise --layer-price"
        )
    make_early(request.out, "router")
    workshop.fill(data.rows)
    return _Prepared(
        data=data,
        what=f"{data.num_layers} routers",
        learnt=len(learnt),
        held_out=len(held_out),
        learn=lambda on_epoch: train_per_layer(learnt, held_out, head, workshop.store, on_epoch=on_epoch),
    )


def _depth(data: LabelledData, request: TrainRequest, workshop: FrozenModelService) -> _Prepared:
    """A probe behind an early exit: classes, labels, and what the first layers make of the prompts."""
    assert isinstance(request.head, EarlyExitRequest)
    head = request.head
    try:
        early = head.exit_of(data.num_layers)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    labels = exit_labels(
        [workshop.searched(run, _verdicts(workshop)) for run in request.data],
        early=early,
        shares=head.short,
        choice=request.labels,
        summaries=workshop.summaries,
        layer_price=request.layer_price,
    )
    data = replace(data, rows=labels.rows, left_out=labels.left_out)
    counted = Counter(row.counts for row in data.rows)
    for name, program in labels.programs.items():
        share = counted[program.counts or ()] / max(1, len(data.rows))
        workshop.announce(f"{name}: {len(program)} layers ({program}), the label of {100 * share:.1f} %.")
    workshop.announce(
        f"{len(data.rows)} questions{_reasons(data.left_out)}; their labels are right on {100 * labels.right:.1f} % "
        f"with {labels.layers:.2f} layers, the untouched model on {100 * labels.base_right:.1f} %."
    )
    learnt, held_out = _split(data, request)
    if len({row.counts for row in learnt}) < 2:
        raise UserError(
            f"every question of {_names(request.data)} has the same label: there is nothing to learn; change "
            "--layer-price or --short, or take other --labels"
        )
    make_early(request.out, "router")
    store = workshop.states(
        data.rows, form=Form(add_special_tokens=data.add_special_tokens), reading=head.kind.reading, early=early
    )
    return _Prepared(
        data=data,
        what=f"a probe behind the first {early} layers",
        learnt=len(learnt),
        held_out=len(held_out),
        learn=lambda on_epoch: train_early_exit(learnt, held_out, labels, head, store, on_epoch=on_epoch),
    )


def _verdicts(workshop: FrozenModelService) -> Path:
    """Where verdicts are kept: beside the features."""
    return workshop.store.folder.parent / "verdicts"


def _lasting(base: BaseModelRef, given: str | None) -> BaseModelRef:
    """The base model by a name that holds in any working directory."""
    name = given or base.name
    path = Path(name).expanduser()
    return BaseModelRef(name=str(path.resolve()) if path.exists() else name, revision=base.revision)


def _described(data: LabelledData) -> str:
    """What the data sets hold, in a line."""
    by_task: dict[str, int] = {}
    for row in data.rows:
        by_task[row.task] = by_task.get(row.task, 0) + 1
    counts = np.array([row.counts for row in data.rows])
    shares = ", ".join(
        f"{name} {100 * (counts == number).mean():.1f} %" for number, name in enumerate(("skip", "execute", "repeat"))
    )
    tasks = ", ".join(f"{number} {task}" for task, number in by_task.items())
    different = len({row.counts for row in data.rows})
    fixed = " Every question has the same one: the routers will always choose it." if different == 1 else ""
    said = (
        f"{len(data.rows)} questions ({tasks}) of {data.base.name}; {different} different labels: {shares}"
        f"{_reasons(data.left_out)}."
    )
    return said + fixed


def _reasons(left_out: dict[str, int]) -> str:
    return "".join(f"; left out, {reason}: {number}" for reason, number in left_out.items())


def _expected(data: LabelledData, request: TrainRequest, workshop: FrozenModelService) -> LabelledData:
    """The same data with the labels that its questions should expect most of; a question of two runs counts once."""
    rows: dict[tuple[str, str], Labelled] = {}
    for run in request.data:
        searched = workshop.searched(run, _verdicts(workshop))
        menu = expected_labels(searched, summaries=workshop.summaries, layer_price=request.layer_price)
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
    held_out = [row for row in data.rows if is_held_out(row, request.held_out, seed=request.head.fit.seed)]
    learnt = [row for row in data.rows if not is_held_out(row, request.held_out, seed=request.head.fit.seed)]
    if not held_out or not learnt:
        raise UserError(
            f"{len(data.rows)} questions are too few: {len(learnt)} to train on and {len(held_out)} held out; "
            "search more of them, or hold out another share with --held-out"
        )
    return learnt, held_out


def _metrics_writers(
    request: TrainRequest, folder: Path, closing: ExitStack
) -> list[Callable[[dict[str, float]], None]]:
    """Where every epoch's record goes."""
    from torch.utils.tensorboard import SummaryWriter

    lines = closing.enter_context((folder / METRICS_FILE).open("w", encoding="utf-8"))
    board = SummaryWriter(str(folder / "tensorboard"))
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

        run = wandb.init(project=request.wandb, config=asdict(request.head.fit))
        closing.callback(run.finish)
        writers.append(run.log)
    return writers


def _names(runs: Sequence[AnyPath]) -> str:
    return ", ".join(map(str, runs))

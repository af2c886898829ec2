"""Training an early exit: classes and labels, the first layers' states, and the fit of the probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.features.hidden_states import StateStore
from router.features.prompt_template import PromptTemplate
from router.fitting import EpochRecord
from router.heads.early_exit.early_exit_head import EarlyExitHead
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.early_exit.exit_labels import ExitLabels, exit_labels
from router.heads.kind import ModelService, TrainedHead
from router.heads.per_layer.fit import KEPT_HELD_OUT
from router.labels.from_runs import RunData
from router.labels.label_request import LabelRequest
from router.labels.labelled import Labelled, TrainingLabels, describe_left_out, held_out_prompts, split
from router.menu.candidates import SearchedRun
from router.probes.fit import FittedProbe, fit_probe
from router.probes.metrics import metrics_of
from router.probes.network import ProbeConfig
from router.probes.probe_plot import draw_probe
from router.probes.texts import LabelledText
from router.probes.train import StoredTexts

#: Windows of a prompt that its summary is made of, where labels are expected ones.
_SUMMARY_WINDOWS = 8


@dataclass(frozen=True, kw_only=True)
class EarlyExitLabels(TrainingLabels):
    """The labels of an early exit.

    Attributes:
        early: Layers before the exit.
        classes: The classes: their programs, and the value of each.
        prompt_template: The prompt template of the head.
    """

    early: int
    classes: ExitLabels
    prompt_template: PromptTemplate


@dataclass(frozen=True, kw_only=True)
class TrainedEarlyExit(TrainedHead):
    """A trained early exit, and the course of its fitting.

    Attributes:
        fitted: The fitted network with the records of its training.
        metrics: Metrics on the held-out texts; see ``router.probes.metrics``.
        held_out: The held-out texts.
    """

    fitted: FittedProbe
    metrics: dict[str, Any]
    held_out: StoredTexts


def label_early_exit(
    runs: RunData, request: LabelRequest, head: EarlyExitRequest, service: ModelService
) -> EarlyExitLabels:
    """Step 1: the classes' programs, and a class for each example. The programs are run on all examples.

    Raises:
        UserError: The exit does not go with the model, or there are too few examples.
    """
    early = head.exit_of(runs.num_layers)
    searched = [SearchedRun.read(path, questions=questions) for path, questions in request.sources]
    every = [row for run in searched for row in run.base_labels]
    found = exit_labels(
        searched,
        service,
        held_out=held_out_prompts(every, request.held_out, seed=head.seed),
        early=early,
        shares=head.short,
        choice=request.labels,
        num_windows=_SUMMARY_WINDOWS,
        layer_price=request.layer_price,
    )
    counted = Counter(row.counts for row in found.rows)
    for name, program in found.programs.items():
        share = counted[program.counts or ()] / max(1, len(found.rows))
        service.announce(f"{name}: {len(program)} layers ({program}), the label of {100 * share:.1f} %.")
    service.announce(
        f"{len(found.rows)} examples{describe_left_out(found.left_out)}; their labels are right on "
        f"{100 * found.right:.1f} % with {found.layers:.2f} layers, the base model on {100 * found.base_right:.1f} %."
    )
    train, held_out = split(found.rows, request.held_out, seed=head.seed)
    return EarlyExitLabels(
        rows=found.rows,
        train=train,
        held_out=held_out,
        left_out=found.left_out,
        description=f"an early exit behind the first {early} layers",
        nothing_to_learn=None
        if len({row.counts for row in train}) > 1
        else "every example has the same label; change --layer-price or --short, or take other --labels",
        early=early,
        classes=found,
        prompt_template=PromptTemplate(add_special_tokens=runs.add_special_tokens),
    )


def extract_early_exit(labels: EarlyExitLabels, head: EarlyExitRequest, service: ModelService) -> StateStore:
    """Step 2: the first layers' states of all prompts."""
    return service.states(
        labels.rows,
        prompt_template=labels.prompt_template,
        state_selection=head.kind.state_selection,
        early=labels.early,
    )


def fit_early_exit(
    labels: EarlyExitLabels, store: StateStore, head: EarlyExitRequest, on_epoch: Callable[[EpochRecord], None]
) -> TrainedEarlyExit:
    """Step 3: fit the probe.

    Raises:
        ValueError: There is nothing to learn, the probe does not go with the model, or the loss is not finite.
    """
    programs, names = labels.classes.programs, list(labels.classes.programs)
    train = _stored(store, labels.train, labels.classes)
    held_out = _stored(store, labels.held_out, labels.classes)
    shape = ProbeConfig(
        **asdict(head.kind),
        num_layers=labels.early,
        hidden_size=train.states(0).shape[-1],
        num_classes=len(names),
    )
    fitted = fit_probe(train, held_out, shape, head.fit, on_epoch=on_epoch)
    scores = fitted.logits.double().softmax(-1).numpy()
    metrics = metrics_of(held_out.labels, scores.argmax(1), scores, names)
    exit_head = EarlyExitHead(fitted.network, programs, labels.classes.worth)
    sample = fitted.logits.log_softmax(-1)
    decided = exit_head.steering(sample.numpy()).choose(sample.numpy())
    layers = np.array([len(program) for program in programs.values()])[decided]
    return TrainedEarlyExit(
        head=exit_head,
        sample=sample[:KEPT_HELD_OUT],
        best=fitted.best,
        f1=metrics["f1"],
        made={"fit": asdict(head.fit), "held_out_layers": float(layers.mean())},
        fitted=fitted,
        metrics=metrics,
        held_out=held_out,
    )


def draw_early_exit(trained: TrainedEarlyExit, file: Path) -> None:
    """Draw the training into a PNG file."""
    draw_probe(trained.fitted, trained.metrics, list(trained.f1), trained.held_out, file)


def _stored(store: StateStore, rows: Sequence[Labelled], classes: ExitLabels) -> StoredTexts:
    """Labelled rows as the probe's fit reads them."""
    name_of = {program.counts: name for name, program in classes.programs.items()}
    texts = [LabelledText(text=row.prompt, label=name_of[row.counts], where=row.example_id) for row in rows]
    return StoredTexts.of(store, texts, list(classes.programs))

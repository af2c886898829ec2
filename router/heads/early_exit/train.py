"""Training the probe that steers depth: from questions that say how deep they need to go to a ``Learnt``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np

from router.features.hidden_states import StateStore
from router.heads.early_exit.early_exit_head import EarlyExitHead
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.early_exit.exit_labels import ExitLabels
from router.heads.head import Learnt
from router.heads.per_layer.fit import KEPT_HELD_OUT
from router.labels.labelled import Labelled
from router.probes.fit import fit_probe
from router.probes.metrics import metrics_of
from router.probes.network import ProbeConfig
from router.probes.probe_plot import draw_probe
from router.probes.texts import LabelledText
from router.probes.train import StoredTexts


def train_early_exit(
    learnt: Sequence[Labelled],
    held_out: Sequence[Labelled],
    labels: ExitLabels,
    request: EarlyExitRequest,
    store: StateStore,
    *,
    on_epoch: Callable[[dict[str, float]], None],
) -> Learnt:
    """Train the probe.

    Args:
        learnt: Questions to learn from, each with one of the programs as its label.
        held_out: Questions to stop by.
        labels: The classes, their programs, and what those are worth.
        request: What is trained, and how.
        store: Has the states of all prompts.
        on_epoch: Told of every epoch's record.

    Raises:
        ValueError: There is nothing to learn, the probe does not go with the model, or the loss is no number any more.
    """
    programs, names = labels.programs, list(labels.programs)
    of_program = {program.counts: name for name, program in programs.items()}

    def stored(rows: Sequence[Labelled]) -> StoredTexts:
        texts = [LabelledText(text=row.prompt, label=of_program[row.counts], where=row.example_id) for row in rows]
        return StoredTexts.of(store, texts, names)

    train, stop = stored(learnt), stored(held_out)
    assert store.early is not None
    shape = ProbeConfig(
        **asdict(request.kind),
        num_layers=store.early,
        hidden_size=train.states(0).shape[-1],
        num_classes=len(names),
    )
    fitted = fit_probe(train, stop, shape, request.fit, on_epoch=on_epoch)
    scores = fitted.logits.double().softmax(-1).numpy()
    metrics = metrics_of(stop.labels, scores.argmax(1), scores, names)
    head, sample = EarlyExitHead(fitted.network, programs, labels.worth), fitted.logits.log_softmax(-1)
    decided = head.steering(sample.numpy()).choose(sample.numpy())
    layers = np.array([len(program) for program in programs.values()])[decided]
    return Learnt(
        head=head,
        sample=sample[:KEPT_HELD_OUT],
        best=fitted.best,
        f1=metrics["f1"],
        made={"fit": asdict(request.fit), "held_out_layers": float(layers.mean())},
        draw=partial(draw_probe, fitted, metrics, names, stop),
    )

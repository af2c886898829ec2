"""One training of a probe: the texts, their states, the fit, the files.

PROBE/config.json, model.safetensors, README.md   the probe; see ``router.probes.probe``
PROBE/metrics.jsonl                               a record for each epoch
PROBE/training.png                                loss curves, confusion matrix, weight of each layer
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.distributed.cluster import check_output
from pipeline.engine.loading import cache_folder, load_description
from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model
from pipeline.storage import is_there, uploaded, without_secrets
from router.artifact.base_model import BaseModelRef
from router.artifact.folder import METRICS_FILE, PICTURE_FILE, check_output_folder, make_early
from router.features.hidden_states import StateStore
from router.features.read_hidden_states import StateRequest, read_states
from router.probes.fit import fit_probe
from router.probes.metrics import best_threshold, metrics_of
from router.probes.network import ProbeConfig
from router.probes.probe import Probe, chosen_labels
from router.probes.probe_plot import draw_probe
from router.probes.probe_requests import ProbeKind, ProbeTrainRequest
from router.probes.texts import LabelledText, check_labels, labels_of, read_texts


@dataclass(frozen=True)
class StoredTexts:
    """Labelled texts whose states a store has."""

    store: StateStore
    texts: Sequence[LabelledText]
    labels: np.ndarray[Any, Any]
    lengths: np.ndarray[Any, Any]

    @classmethod
    def of(cls, store: StateStore, texts: Sequence[LabelledText], labels: Sequence[str]) -> StoredTexts:
        """The texts with their labels and lengths as arrays."""
        numbers = {label: number for number, label in enumerate(labels)}
        return cls(
            store,
            texts,
            np.array([numbers.get(text.label, -1) for text in texts], dtype=np.int64),
            np.array(store.lengths([text.text for text in texts]), dtype=np.int64),
        )

    def states(self, index: int) -> np.ndarray[Any, Any]:
        return self.store.read(self.texts[index].text)


def train_probe(
    request: ProbeTrainRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda record: None,
) -> dict[str, Any]:
    """Train a probe on labelled texts and write it.

    Args:
        request: The training.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.
        on_epoch: Receives every epoch's record.

    Returns:
        The probe's metrics on the held-out texts; see ``router.probes.metrics``.

    Raises:
        UserError: Something in the request, or in the texts, is wrong.
        KeyboardInterrupt: The training was interrupted; states that were computed are kept.
    """
    check_output(request.out)
    if is_there(request.out / "run.json"):
        raise UserError(f"{request.out} is a run folder; give another one to --out")
    check_output_folder(request.out, "probe", overwrite=request.overwrite)
    train, held_out = read_split(request)
    labels = labels_of(train, request.data)
    check_labels(held_out, labels, request.validation or request.data)
    source = resolve_model(request.model)
    shape = shape_on(source, request.kind, num_classes=len(labels))
    make_early(request.out, "probe")
    announce(_described(train, held_out, labels))
    store, dtype = read_states(
        StateRequest(
            source=source,
            prompt_template=request.prompt_template,
            state_selection=request.kind.state_selection,
            features=request.features or cache_folder() / "features",
            resources=request.resources,
            most_gib=request.most_gib,
        ),
        [text.text for text in (*train, *held_out)],
        announce=announce,
        show=show,
    )
    _, fingerprint = store.model()
    train_texts = StoredTexts.of(store, train, labels)
    held_out_texts = StoredTexts.of(store, held_out, labels)
    records: list[str] = []

    def write(record: dict[str, float]) -> None:
        records.append(json.dumps(record) + "\n")
        on_epoch(record)

    try:
        fitted = fit_probe(train_texts, held_out_texts, shape, request.fit, on_epoch=write)
    except ValueError as error:
        raise UserError(f"no probe can be trained on {without_secrets(request.data)}: {error}") from None
    scores = fitted.logits.double().softmax(-1).numpy()
    threshold = best_threshold(held_out_texts.labels, scores[:, 1]) if len(labels) == 2 else None
    metrics = metrics_of(held_out_texts.labels, chosen_labels(scores, threshold), scores, labels)
    probe = Probe(
        base=BaseModelRef(name=source.location, revision=source.revision),
        network=fitted.network,
        labels=labels,
        weights_fingerprint=fingerprint,
        prompt_template=request.prompt_template,
        threshold=threshold,
        made={
            "data": without_secrets(request.data),
            "text_column": request.text_column,
            "label_column": request.label_column,
            "texts": len(train),
            "held_out_texts": len(held_out),
            "dtype": dtype,
            "fit": asdict(request.fit),
            "epoch": fitted.best["epoch"],
            **{f"held_out_{name}": metrics[name] for name in ("accuracy", "macro_f1", "auprc", "calibration_error")},
        },
    )
    probe.save_pretrained(request.out)
    try:
        with uploaded(request.out) as folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / METRICS_FILE).write_text("".join(records), encoding="utf-8")
            draw_probe(fitted, metrics, labels, held_out_texts, folder / PICTURE_FILE)
    except OSError as error:
        announce(f"The records and the picture cannot be written: {error.strerror or error}")
    return metrics


def read_split(request: ProbeTrainRequest) -> tuple[list[LabelledText], list[LabelledText]]:
    """The training texts and the held-out texts.

    Raises:
        UserError: The texts cannot be read, or are too few.
    """

    def read(data: str, split: str, limit: int | None) -> list[LabelledText]:
        return read_texts(
            data, text_column=request.text_column, label_column=request.label_column, split=split, limit=limit
        )

    texts = read(request.data, request.split, request.limit)
    labels_of(texts, request.data)  # of one label there is nothing to split
    if request.validation is not None:
        return texts, read(request.validation, request.validation_split, None)
    held_out = [text for text in texts if _draw(text.text) < request.held_out]
    train = [text for text in texts if _draw(text.text) >= request.held_out]
    # A label whose texts all fall into the held-out part is trained on instead.
    missing = {text.label for text in held_out} - {text.label for text in train}
    train += [text for text in held_out if text.label in missing]
    held_out = [text for text in held_out if text.label not in missing]
    if not train or not held_out:
        raise UserError(
            f"{len(texts)} texts are too few: {len(train)} to train on and {len(held_out)} held out; give more, "
            "or another share with --held-out"
        )
    return train, held_out


def _draw(text: str) -> float:
    """A number between 0 and 1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(f"held out\n{text}".encode()).digest()[:8]) / 2**64


def _described(train: Sequence[LabelledText], held_out: Sequence[LabelledText], labels: Sequence[str]) -> str:
    counted = Counter(text.label for text in train)
    shares = ", ".join(f"{label} {100 * counted[label] / len(train):.1f} %" for label in labels)
    return f"{len(train)} texts to learn from, {len(held_out)} held out; {len(labels)} labels: {shares}."


def shape_on(source: ModelSource, kind: ProbeKind, *, num_classes: int) -> ProbeConfig:
    """The shape of a kind of probe on a model that is not loaded yet.

    Raises:
        UserError: The model cannot be read, or its sizes do not fit the kind of probe.
    """
    config = load_description(source)[0]
    try:
        return ProbeConfig(
            **asdict(kind),
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            num_classes=num_classes,
        )
    except ValueError as error:
        raise UserError(f"the probe does not go with {source.name}: {error}") from None

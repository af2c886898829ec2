"""Using a trained probe on many texts: ``probe evaluate`` and ``probe predict``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pipeline.distributed.cluster import check_output
from pipeline.engine.loading import cache_folder
from pipeline.errors import UserError
from pipeline.storage import AnyPath, is_folder, write_whole
from router.artifact.base_model import find_base
from router.features.read_hidden_states import StateRequest, read_states
from router.probes.fit import logits_of
from router.probes.metrics import metrics_of
from router.probes.probe import Label, Probe
from router.probes.probe_requests import ProbeRequest
from router.probes.texts import LabelledText, check_labels, read_texts
from router.probes.train import StoredTexts


def evaluate_probe(
    request: ProbeRequest,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Evaluate a probe on labelled texts.

    Returns:
        The probe's metrics; see ``router.probes.metrics``.

    Raises:
        UserError: Something in the request, the probe or the texts is wrong.
    """
    probe = Probe.from_pretrained(request.probe)
    texts = _texts(request, probe, labelled=True)
    check_labels(texts, probe.labels, request.data)
    stored, logits = _logits_of(request, probe, texts, announce, show)
    scores = logits.double().softmax(-1).numpy()
    return metrics_of(stored.labels, probe.chosen(scores), scores, probe.labels)


def predict(
    request: ProbeRequest,
    out: AnyPath,
    *,
    announce: Callable[[str], None] = lambda line: None,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Label]:
    """Predict the labels of texts, and write a JSON line with ``label`` and ``scores`` for each row.

    Args:
        request: The texts and the probe.
        out: The file to write.
        announce: Receives a line for the user.
        show: Receives the name of a step, how much of the step is done, and of how much.

    Raises:
        UserError: Something in the request, the probe or the texts is wrong, or the file cannot be written.
    """
    check_output(out)
    if is_folder(out):
        raise UserError(f"{out} is a folder; give a file to --out")
    probe = Probe.from_pretrained(request.probe)
    texts = _texts(request, probe, labelled=False)
    _, logits = _logits_of(request, probe, texts, announce, show)
    labels = probe.labelled(logits)
    lines = (json.dumps({"label": label.label, "scores": label.scores}, ensure_ascii=False) for label in labels)
    try:
        write_whole(out, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from None
    return labels


def _texts(request: ProbeRequest, probe: Probe, *, labelled: bool) -> list[LabelledText]:
    label_column = request.label_column or probe.made.get("label_column", "label")
    return read_texts(
        request.data,
        text_column=request.text_column or probe.made.get("text_column", "text"),
        label_column=label_column if labelled else None,
        split=request.split,
        limit=request.limit,
    )


def _logits_of(
    request: ProbeRequest,
    probe: Probe,
    texts: Sequence[LabelledText],
    announce: Callable[[str], None],
    show: Callable[[str, int, int], None],
) -> tuple[StoredTexts, torch.Tensor]:
    """The texts with their states, and the probe's logits, ``[N, classes]``."""
    store, _ = read_states(
        StateRequest(
            source=find_base(probe.base, request.base, kind="probe"),
            prompt_template=probe.prompt_template,
            state_selection=probe.config.state_selection,
            features=request.features or cache_folder() / "features",
            resources=request.resources,
            most_gib=request.most_gib,
        ),
        [text.text for text in texts],
        announce=announce,
        show=show,
    )
    stored = StoredTexts.of(store, texts, probe.labels)
    _check_sizes(probe, stored)
    return stored, logits_of(probe.network, stored)


def _check_sizes(probe: Probe, stored: StoredTexts) -> None:
    found, (num_layers, _) = stored.states(0).shape[-1], stored.store.model()
    if (num_layers, found) != (probe.config.num_layers, probe.config.hidden_size):
        raise UserError(
            f"the probe is for {probe.config.num_layers} layers and hidden size {probe.config.hidden_size}, "
            f"the model has {num_layers} and {found}"
        )


def write_metrics(metrics: dict[str, Any], file: AnyPath) -> None:
    """Write metrics as JSON.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        write_whole(file, (json.dumps(metrics, indent=2) + "\n").encode())
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from None

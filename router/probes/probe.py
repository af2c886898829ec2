"""``Probe``: a trained probe, in one line, and its folder.

    probe = Probe.from_pretrained(PROBE)
    lm.generate([probe.prompt(text)], …, probes=[probe])      # text and labels from one pass

PROBE/config.json         shape, labels, the base model by name and revision, the prompt template, how it was made
PROBE/model.safetensors   weights
PROBE/README.md           model card
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.engine.loading import weights_fingerprint
from pipeline.errors import UserError
from pipeline.storage import PathOrUrl
from router.artifact.base_model import BaseModelRef, short_revision
from router.artifact.folder import (
    WEIGHTS_FILE,
    load_weights,
    read_described,
    read_tensors,
    write_folder,
)
from router.artifact.model_card import probe_card
from router.features.hidden_states import pool_states, stack_states
from router.features.prompt_template import TEXT, PromptTemplate
from router.probes.fit import collated
from router.probes.network import ProbeConfig, ProbeNetwork

_KIND = "probe"


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A probe's label of a text.

    Attributes:
        label: The label that the probe chooses.
        scores: The probability of each label.
    """

    label: str
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained probe with everything that its use needs, but for the base model.

    Attributes:
        base: The base model.
        network: The network.
        labels: Names of its classes.
        weights_fingerprint: Fingerprint of the base model's weights; see ``pipeline.engine.loading``. None where
            weights are not compared.
        prompt_template: The prompt of each text.
        threshold: Of two labels, the probability from which the second is chosen; None for the likelier.
        made: Settings and metrics of the training.
    """

    base: BaseModelRef
    network: ProbeNetwork
    labels: tuple[str, ...]
    weights_fingerprint: str | None
    prompt_template: PromptTemplate = field(default_factory=PromptTemplate)
    threshold: float | None = None
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ProbeConfig:
        """Shape of the probe's network."""
        return self.network.config

    @property
    def whole(self) -> bool:
        """Whether the probe reads every token that leaves the last layer."""
        return self.config.state_selection != "last"

    def check_model(self, hf_model: Any) -> None:
        """Refuse a model that the probe was not trained on.

        Raises:
            UserError: The sizes or the weights differ.
        """
        depth, hidden = hf_model.config.num_hidden_layers, hf_model.config.hidden_size
        if (depth, hidden) != (self.config.num_layers, self.config.hidden_size):
            raise UserError(
                f"the probe was trained on {self.base.name} ({self.config.num_layers} layers, hidden size "
                f"{self.config.hidden_size}), this model has {depth} layers and hidden size {hidden}"
            )
        found = weights_fingerprint(hf_model)
        if found is not None and self.weights_fingerprint is not None and found != self.weights_fingerprint:
            raise UserError(
                f"the probe was trained on {self.base.name} (revision {short_revision(self.base.revision)}); this "
                "model has its shape, but other weights"
            )

    def prompt(self, text: str) -> str:
        """The prompt of a text, as in the probe's training."""
        return self.prompt_template.template.replace(TEXT, text)

    def take(self, state: torch.Tensor) -> torch.Tensor:
        """The part of one layer's states ``[T, D]`` that the probe needs, ``[T or 1, D]`` in float16, on the CPU."""
        return pool_states(state, self.config.state_selection).cpu()

    def label(self, states: torch.Tensor) -> Label:
        """The label of one text, from what ``take`` made of every layer's states, stacked: ``[S, T or 1, D]``.

        Raises:
            UserError: The states are not finite.
        """
        if not bool(states.isfinite().all()):
            raise UserError("the hidden states are not finite: the model overflows; use bfloat16 or float32")
        of_text = stack_states(states, self.config.state_selection).numpy()
        with torch.inference_mode():
            logits = self.network(*collated([of_text]))
        return self.labelled(logits)[0]

    def labelled(self, logits: torch.Tensor) -> list[Label]:
        """Labels from the network's logits ``[N, classes]``."""
        scores = logits.double().softmax(-1).numpy()
        return [
            Label(label=self.labels[chosen], scores=dict(zip(self.labels, map(float, of_text))))
            for chosen, of_text in zip(self.chosen(scores), scores)
        ]

    def chosen(self, scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Indices of the labels that are chosen, ``[N]``, from probabilities ``[N, classes]``."""
        return chosen_labels(scores, self.threshold)

    # -- on disk ---------------------------------------------------------------------------

    def save_pretrained(self, folder: PathOrUrl) -> None:
        """Write the probe to a folder: a new one, or one that holds a probe; the base model stays where it is.

        Raises:
            UserError: The folder holds something else, or cannot be written.
        """
        config = {
            "base_model": asdict(self.base),
            **asdict(self.config),
            "labels": list(self.labels),
            "mark": self.weights_fingerprint,
            **asdict(self.prompt_template),
            "threshold": self.threshold,
            "made": self.made,
        }
        write_folder(folder, _KIND, config=config, tensors=self.network.state_dict(), card=probe_card(config))

    @classmethod
    def from_pretrained(cls, source: PathOrUrl) -> Probe:
        """Read a probe from a folder, or from the hub by its id.

        Raises:
            UserError: There is no such probe, or its files are damaged; the message says which.
        """
        probe, folder = read_described(source, _KIND, cls._described)
        load_weights(probe.network, read_tensors(folder / WEIGHTS_FILE, _KIND), folder / WEIGHTS_FILE)
        return probe

    @classmethod
    def _described(cls, config: dict[str, Any]) -> Probe:
        """The probe of a configuration, with weights that are yet to be loaded.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: The configuration is not valid.
        """
        shape = ProbeConfig(**{name: config[name] for name in ProbeConfig.__dataclass_fields__})
        labels, threshold = tuple(config["labels"]), config["threshold"]
        if len(labels) != shape.num_classes or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"{len(labels)} labels for {shape.num_classes} classes")
        if threshold is not None and not (len(labels) == 2 and 0 <= threshold <= 1):
            raise ValueError(f"a threshold of {threshold}")
        return cls(
            base=BaseModelRef(**config["base_model"]),
            network=ProbeNetwork(shape),
            labels=labels,
            weights_fingerprint=None if config["mark"] is None else str(config["mark"]),
            prompt_template=PromptTemplate(**{name: config[name] for name in PromptTemplate.__dataclass_fields__}),
            threshold=threshold,
            made=dict(config["made"]),
        )


def chosen_labels(scores: np.ndarray[Any, Any], threshold: float | None) -> np.ndarray[Any, Any]:
    """Indices of the labels that are chosen, ``[N]``.

    Args:
        scores: Probabilities ``[N, classes]``.
        threshold: Of two labels, the probability from which the second is chosen; None for the likeliest label.
    """
    if threshold is None:
        return np.asarray(scores.argmax(1))
    return (scores[:, 1] >= threshold).astype(np.int64)

"""``Probe``: a trained probe, in one line, and its folder.

    probe = Probe.from_pretrained(PROBE)
    lm.generate([probe.prompt(text)], …, probes=[probe])      # text and labels from one pass

PROBE/config.json         its shape, its labels, the base model by name and revision, how texts are put, how it was made
PROBE/model.safetensors   its weights
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
from router.artifact.base_model import BaseModelRef
from router.artifact.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_version,
    find_folder,
    read_config,
    read_tensors,
    write_folder,
)
from router.artifact.model_card import probe_card
from router.features.hidden_states import reduced, together
from router.features.prompt_template import TEXT, Form
from router.probes.fit import collated
from router.probes.network import ProbeConfig, ProbeNetwork

_KIND = "probe"


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What a probe says of a text.

    Attributes:
        label: The label that it chooses.
        scores: The probability of each label.
    """

    label: str
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A trained probe with everything that using it takes, but for the base model.

    Attributes:
        base: The base model.
        network: The network.
        labels: What its classes are called.
        mark: Of the base model's weights; see ``weights_fingerprint``. None where they are not compared.
        form: How texts are put to the model.
        threshold: Of two labels, the probability from which the second is chosen; None for the likelier.
        made: How it was made: settings and metrics.
    """

    base: BaseModelRef
    network: ProbeNetwork
    labels: tuple[str, ...]
    mark: str | None
    form: Form = field(default_factory=Form)
    threshold: float | None = None
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ProbeConfig:
        """Its shape."""
        return self.network.config

    @property
    def whole(self) -> bool:
        """Whether it looks at every token that leaves the last layer."""
        return self.config.reading != "last"

    def check_model(self, hf_model: Any) -> None:
        """Refuse a model that it was not trained on.

        Raises:
            UserError: The sizes or the weights differ.
        """
        depth, hidden = hf_model.config.num_hidden_layers, hf_model.config.hidden_size
        if (depth, hidden) != (self.config.num_layers, self.config.hidden_size):
            raise UserError(
                f"the probe was trained on {self.base.name} ({self.config.num_layers} layers, hidden size "
                f"{self.config.hidden_size}), this model has {depth} layers and hidden size {hidden}"
            )
        mark = weights_fingerprint(hf_model)
        if mark is not None and self.mark is not None and mark != self.mark:
            raise UserError(
                f"the probe was trained on {self.base.name} at revision {self.base.revision[:19]}…; this model has its "
                "shape, but other weights"
            )

    def prompt(self, text: str) -> str:
        """A text in the form in which the probe was trained on texts."""
        return self.form.template.replace(TEXT, text)

    def take(self, state: torch.Tensor) -> torch.Tensor:
        """What the probe needs of one layer's states ``[T, D]``: ``[T or 1, D]`` in float16, on the CPU."""
        return reduced(state, self.config.reading).cpu()

    def label(self, states: torch.Tensor) -> Label:
        """The label of one text, from what ``take`` made of every layer's states, stacked: ``[S, T or 1, D]``.

        Raises:
            UserError: The states are no numbers.
        """
        if not bool(states.isfinite().all()):
            raise UserError("the hidden states are no numbers: the model overflows; use bfloat16 or float32")
        of_text = together(states, self.config.reading).numpy()
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
        """Numbers of the labels that are chosen at probabilities ``[N, classes]``."""
        if self.threshold is None:
            return np.asarray(scores.argmax(1))
        return (scores[:, 1] >= self.threshold).astype(np.int64)

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
            "mark": self.mark,
            **asdict(self.form),
            "threshold": self.threshold,
            "made": self.made,
        }
        write_folder(folder, _KIND, config=config, tensors=self.network.state_dict(), card=probe_card(config))

    @classmethod
    def from_pretrained(cls, source: PathOrUrl) -> Probe:
        """Read a probe from a folder, or from the hub by its id.

        Raises:
            UserError: There is none, or its files are damaged; the message says which.
        """
        folder = find_folder(source, _KIND)
        config = read_config(folder, _KIND)
        try:
            check_version(config, folder)
            base = BaseModelRef(**config["base_model"])
            shape = ProbeConfig(**{name: config[name] for name in ProbeConfig.__dataclass_fields__})
            form = Form(**{name: config[name] for name in Form.__dataclass_fields__})
            labels, threshold, made = tuple(config["labels"]), config["threshold"], dict(config["made"])
            mark = None if config["mark"] is None else str(config["mark"])
            if len(labels) != shape.num_classes or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"{len(labels)} labels for {shape.num_classes} classes")
            if threshold is not None and not (len(labels) == 2 and 0 <= threshold <= 1):
                raise ValueError(f"a threshold of {threshold}")
            network = ProbeNetwork(shape)
        # Torch has no memory for what is too large.
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{folder / CONFIG_FILE} is no probe's configuration: {error!r}") from None
        found = read_tensors(folder / WEIGHTS_FILE, _KIND)
        expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if {name: tensor.shape for name, tensor in found.items()} != expected:
            raise UserError(f"{folder / WEIGHTS_FILE} does not hold the weights that {CONFIG_FILE} describes")
        network.load_state_dict(found)
        network.eval().requires_grad_(False)
        return cls(base=base, network=network, labels=labels, mark=mark, form=form, threshold=threshold, made=made)

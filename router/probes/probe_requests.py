"""What trainings, uses and comparisons of probes are asked for. The module imports no framework."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.storage import AnyPath
from router.features.prompt_template import MOST_GIB, TEXT, PromptTemplate
from router.probes.texts import QUESTION, check_template

AGGREGATORS = ("pooling", "gate", "mha")
POOLINGS = ("mean", "max")
#: What a probe reads: every token of all layers, or of the last; the last token in all layers, or in the last.
SCOPES = ("all", "tokens", "layers", "last")
#: What can be compared: the paper's three kinds, the three scopes that leave something out, and plain classifiers.
METHODS = (*AGGREGATORS, *(f"gate-{scope}" for scope in SCOPES[1:-1]), "last", "first-token", "tf-idf", "zero-shot")


@dataclass(frozen=True, kw_only=True)
class ProbeKind:
    """What a probe is, on any model.

    Raises:
        ValueError: A field is out of its range.
    """

    aggregator: str = "gate"
    """``pooling``, ``gate`` or ``mha``."""
    pooling: str = "mean"
    """``mean`` or ``max``: the whole of ``pooling``, and the end of ``mha``."""
    scope: str = "all"
    """States that are read; see ``SCOPES``."""
    downcast: int = 32
    """What ``mha`` divides the width by."""
    num_heads: int = 2
    """Heads of ``mha``."""

    def __post_init__(self) -> None:
        for name, known in (("aggregator", AGGREGATORS), ("pooling", POOLINGS), ("scope", SCOPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose one of: {', '.join(known)}")
        for name in ("downcast", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def state_selection(self) -> str:
        """What such a probe must be given of a text; see ``router.features.hidden_states``."""
        if self.scope == "all":
            return self.pooling if self.aggregator == "pooling" else "tokens"
        return "top" if self.scope == "tokens" else "last"


@dataclass(frozen=True, kw_only=True)
class ProbeFitConfig:
    """How a probe is fitted. Where the paper (2601.13288, appendix) gives a range, a value of it.

    Raises:
        ValueError: A field is out of its range.
    """

    epochs: int = 10
    """Most passes over the training texts."""
    batch_size: int = 16
    """Texts of a step."""
    learning_rate: float = 1e-3
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    warmup: float = 0.1
    """Share of the steps until the highest learning rate is reached."""
    balance: float = 0.5
    """How much rare labels count for more: a label of n texts weighs as n to the power of minus this; 0 for alike, 1
    for classes that weigh the same."""
    patience: int = 3
    """Epochs without a better macro-F1 after which training ends."""
    seed: int = 0
    """Seed of the weights and of the order of the texts."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must not be below 0, got {self.weight_decay}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2^63, got {self.seed}")
        for name in ("warmup", "balance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

    def warmup_of(self, num_steps: int) -> int:
        """Warm-up steps of a training of so many steps."""
        return round(self.warmup * num_steps)


@dataclass(frozen=True, kw_only=True)
class ProbeTrainRequest:
    """What ``drllm-pipeline probe train`` was asked for.

    Raises:
        UserError: A field is out of its range.
    """

    model: str
    """Hub id, folder, ``.gguf`` file or embedded name."""
    data: str
    """Labelled texts: a file, a folder or a hub data set."""
    out: AnyPath
    """Probe folder."""
    text_column: str = "text"
    """Column of the texts."""
    label_column: str = "label"
    """Column of their labels."""
    split: str = "train"
    """Split of a hub data set."""
    validation: str | None = None
    """Labelled texts to stop by; None for a share of the others."""
    validation_split: str = "validation"
    """Split of a hub data set to stop by, where ``validation`` is one."""
    held_out: float = 0.1
    """Fraction of ``data`` that is held out, without ``validation``."""
    limit: int | None = None
    """At most this many texts."""
    prompt_template: PromptTemplate = field(default_factory=PromptTemplate)
    """How texts are put to the model."""
    kind: ProbeKind = field(default_factory=ProbeKind)
    """What the probe is."""
    fit: ProbeFitConfig = field(default_factory=ProbeFitConfig)
    """How the probe is fitted."""
    features: Path | None = None
    """Where states are kept; None for the user's cache folder."""
    most_gib: float = MOST_GIB
    """Most that the states may take on the disk."""
    resources: Resources = field(default_factory=Resources)
    """What actors that read texts run on."""

    def __post_init__(self) -> None:
        check_template(self.prompt_template.template)
        if self.prompt_template.max_tokens is not None and self.prompt_template.max_tokens < 1:
            raise UserError(f"--max-tokens must be at least 1, got {self.prompt_template.max_tokens}")
        if not 0 < self.held_out < 1:
            raise UserError(f"--held-out must be between 0 and 1, got {self.held_out:g}")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit must be at least 1, got {self.limit}")
        if not self.most_gib > 0:
            raise UserError(f"--max-states-gib must be above 0, got {self.most_gib:g}")


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """What ``drllm-pipeline probe evaluate`` or ``predict`` was asked for.

    Raises:
        UserError: A field is out of its range.
    """

    probe: str
    """Probe folder, or hub id."""
    data: str
    """Texts: a file, a folder or a hub data set."""
    text_column: str | None = None
    """Column of the texts; None for that of the training."""
    label_column: str | None = None
    """Column of their labels; None for that of the training."""
    split: str = "test"
    """Split of a hub data set."""
    limit: int | None = None
    """At most this many texts."""
    base: str | None = None
    """Where the base model lies, if not where the probe was trained."""
    features: Path | None = None
    """Where states are kept; None for the user's cache folder."""
    most_gib: float = MOST_GIB
    """Most that the states may take on the disk."""
    resources: Resources = field(default_factory=Resources)
    """What actors that read texts run on."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit must be at least 1, got {self.limit}")
        if not self.most_gib > 0:
            raise UserError(f"--max-states-gib must be above 0, got {self.most_gib:g}")


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """What ``drllm-pipeline probe compare`` was asked for.

    Raises:
        UserError: A field is out of its range.
    """

    train: ProbeTrainRequest
    """Texts to learn from, and how; its kind of probe does not matter."""
    test: str
    """Labelled texts to evaluate on."""
    test_split: str = "test"
    """Split of a hub data set."""
    methods: tuple[str, ...] = METHODS
    """Which are compared."""
    seeds: int = 3
    """Trainings of each probe."""
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Each probe is trained with the one that is best on the held-out texts, for the first seed."""
    question: str = QUESTION
    """The question that zero-shot prompting asks."""

    def __post_init__(self) -> None:
        if self.question.count(TEXT) != 1:
            raise UserError(f"--question must contain {TEXT} once, got {self.question!r}")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise UserError(f"unknown contender {', '.join(unknown)!r}; choose from: {', '.join(METHODS)}")
        if self.seeds < 1:
            raise UserError(f"--seeds must be at least 1, got {self.seeds}")
        if not self.learning_rates:
            raise UserError("--lr needs at least one learning rate")
        for rate in self.learning_rates:
            try:
                replace(self.train.fit, learning_rate=rate)
            except ValueError as error:
                raise UserError(f"--lr: {error}") from None

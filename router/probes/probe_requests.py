"""The requests of trainings, uses and comparisons of probes. The module imports no framework."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath
from router.features.prompt_template import MOST_GIB, TEXT, PromptTemplate
from router.probes.texts import QUESTION

Aggregator = Literal["pooling", "gate", "mha"]
Pooling = Literal["mean", "max"]
Scope = Literal["all", "tokens", "layers", "last"]
AGGREGATORS: tuple[Aggregator, ...] = get_args(Aggregator)
#: What a probe reads: every token of all layers, or of the last; the last token in all layers, or in the last.
SCOPES: tuple[Scope, ...] = get_args(Scope)
#: The methods of a comparison: the paper's three kinds, the three reduced scopes, and plain classifiers.
METHODS = (*AGGREGATORS, *(f"gate-{scope}" for scope in SCOPES[1:-1]), "last", "first-token", "tf-idf", "zero-shot")


@dataclass(frozen=True, kw_only=True)
class ProbeKind:
    """The kind of a probe, independent of the model.

    Raises:
        UserError: A field is out of its range.
    """

    aggregator: Aggregator = "gate"
    """Aggregation of tokens, and then of layers: by pooling alone, by a weight that each state gives itself, or by
    self-attention."""
    pooling: Pooling = "mean"
    """Pooling of the aggregator pooling, and of the end of mha."""
    scope: Scope = "all"
    """States that are read: all; all tokens of the last layer; the last token of all layers; the last of both."""
    downcast: int = field(default=32, metadata=option(at_least=1, advanced=True))
    """Divisor of the model's width for mha."""
    num_heads: int = field(default=2, metadata=option(at_least=1, advanced=True))
    """Number of attention heads of mha."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def state_selection(self) -> str:
        """The states of a text that such a probe needs; see ``router.features.hidden_states``."""
        if self.scope == "all":
            return self.pooling if self.aggregator == "pooling" else "tokens"
        return "top" if self.scope == "tokens" else "last"


@dataclass(frozen=True, kw_only=True)
class ProbeFitConfig:
    """The fitting of a probe. Where the paper (2601.13288, appendix) gives a range, a value of it.

    Raises:
        UserError: A field is out of its range.
    """

    epochs: int = field(default=10, metadata=option(at_least=1))
    """Most passes over the training texts."""
    batch_size: int = field(default=16, metadata=option(at_least=1))
    """Number of texts in a step of the optimizer."""
    learning_rate: float = field(default=1e-3, metadata=option("--lr", above=0))
    """Learning rate of AdamW, at its highest."""
    weight_decay: float = field(default=0.01, metadata=option(at_least=0))
    """Weight decay of AdamW."""
    warmup: float = field(default=0.1, metadata=option(at_least=0, at_most=1))
    """Share of the steps until the learning rate is at its highest."""
    balance: float = field(default=0.5, metadata=option(at_least=0, at_most=1, advanced=True))
    """Weight of rare labels: a label of n texts weighs as n to the power of minus this; 0 for alike, 1
    for classes that weigh the same."""
    patience: int = field(default=3, metadata=option(at_least=1))
    """Epochs without a better macro-F1 until training ends."""
    seed: int = field(default=0, metadata=option(at_least=0, below=2**63))
    """Seed of the weights and of the order of the texts."""

    def __post_init__(self) -> None:
        check_fields(self)

    def warmup_of(self, num_steps: int) -> int:
        """Warm-up steps of a training of ``num_steps`` steps."""
        return round(self.warmup * num_steps)


@dataclass(frozen=True, kw_only=True)
class ProbeTrainRequest:
    """The request of ``drllm-pipeline probe train``.

    Raises:
        UserError: A field is out of its range.
    """

    model: str
    """Hub id, local folder, .gguf file, or 'smollm2'."""
    data: str
    """Labelled texts: jsonl, csv or parquet file or folder, or a hub data set."""
    out: AnyPath
    """Probe folder."""
    text_column: str = "text"
    """Column of the texts."""
    label_column: str = "label"
    """Column of the labels."""
    split: str = "train"
    """Split of a hub data set."""
    validation: str | None = field(default=None, metadata=option(unset="a share of --data"))
    """Labelled texts that early stopping is decided on, as --data."""
    validation_split: str = "validation"
    """Split of --validation, if it is a hub data set."""
    held_out: float = field(default=0.1, metadata=option(above=0, below=1))
    """Share of --data that early stopping is decided on, without --validation."""
    limit: int | None = field(default=None, metadata=option(at_least=1))
    """Only the first N rows of --data."""
    prompt_template: PromptTemplate = field(default_factory=PromptTemplate)
    """Prompt template of the texts."""
    kind: ProbeKind = field(default_factory=ProbeKind)
    """The architecture of the probe."""
    fit: ProbeFitConfig = field(default_factory=ProbeFitConfig)
    """Training of the probe."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache", advanced=True))
    """Folder of the hidden states."""
    most_gib: float = field(
        default=MOST_GIB, metadata=option("--max-states-gib", above=0, infinite=True, advanced=True)
    )
    """Most that these texts' states may take on the disk."""
    overwrite: bool = False
    """Replace the probe that --out holds."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors that read texts."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """The request of ``drllm-pipeline probe evaluate`` or ``predict``.

    Raises:
        UserError: A field is out of its range.
    """

    probe: str
    """Probe folder, or hub id."""
    data: str
    """Texts: jsonl, csv or parquet file or folder, or a hub data set."""
    text_column: str | None = field(default=None, metadata=option(unset="that of the training"))
    """Column of the texts."""
    label_column: str | None = field(default=None, metadata=option(unset="that of the training"))
    """Column of the labels."""
    split: str = "test"
    """Split of a hub data set."""
    limit: int | None = field(default=None, metadata=option(at_least=1))
    """Only the first N rows of --data."""
    base: str | None = None
    """Path of the base model, if it is not that of the training."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache", advanced=True))
    """Folder of the hidden states."""
    most_gib: float = field(
        default=MOST_GIB, metadata=option("--max-states-gib", above=0, infinite=True, advanced=True)
    )
    """Most that these texts' states may take on the disk."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors that read texts."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """The request of ``drllm-pipeline probe compare``.

    Raises:
        UserError: A field is out of its range, or a method is unknown.
    """

    train: ProbeTrainRequest
    """Texts to learn from, and how; each method sets the aggregator and the scope itself."""
    test: str
    """Labelled texts to evaluate on, as --data."""
    test_split: str = "test"
    """Split of --test, if it is a hub data set."""
    methods: tuple[str, ...] = field(default=METHODS, metadata=option("--contender", unset="all"))
    """Only this one; may be repeated."""
    seeds: int = field(default=3, metadata=option(at_least=1))
    """Number of trainings of each probe, each with another seed."""
    learning_rates: tuple[float, ...] = field(default=(3e-4, 1e-3, 3e-3), metadata=option("--lr", above=0))
    """Learning rates of AdamW: each probe takes the one that is best on the held-out texts, for the first seed."""
    question: str = QUESTION
    """Prompt for the label; {text} and {labels} stand for the text and the labels."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.question.count(TEXT) != 1:
            raise UserError(f"--question must contain {TEXT} once, got {self.question!r}")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise UserError(f"unknown --contender {', '.join(unknown)!r}; choose from: {', '.join(METHODS)}")
        if not self.learning_rates:
            raise UserError("--lr needs at least one learning rate")

"""What a router's training is asked for. The module imports no framework, so that ``train --help`` waits for none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.per_layer.per_layer_request import PerLayerRequest


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What ``drllm-pipeline train`` was asked for.

    Raises:
        UserError: A field is out of its range, or excludes another one.
    """

    data: tuple[AnyPath, ...]
    """Run folder; may be repeated."""
    out: AnyPath
    """Router folder."""
    base: str | None = None
    """Hub id, folder or .gguf file of the searched model, if it lies elsewhere now."""
    labels: Literal["expected", "consensus", "shortest"] = "expected"
    """An example's label. expected: of a candidate set of programs, which are run on all examples, the one that is
    right most often on examples like it. consensus: of its own right programs the one most like other examples'.
    shortest: the shortest of them, as in the paper. Of --head probe's classes, expected or shortest."""
    layer_price: float = field(default=0.01, metadata=option(at_least=0))
    """What a layer costs a label: the higher, the shorter the labels. In right answers per example for --labels
    expected (0.01 is one percentage point), in nats for consensus."""
    held_out: float = field(default=0.1, metadata=option(above=0, below=1))
    """Share of the examples that early stopping is decided on."""
    head: PerLayerRequest | EarlyExitRequest = field(default_factory=PerLayerRequest)
    """What is trained."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache"))
    """Where prompts' features are kept."""
    resources: Resources = field(default_factory=Resources)
    """What actors that read prompts run on."""
    wandb: str | None = field(default=None, metadata=option(metavar="PROJECT"))
    """Also report to Weights & Biases."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.data:
            raise UserError("--data needs at least one run folder")
        if isinstance(self.head, EarlyExitRequest) and self.labels == "consensus":
            raise UserError("--labels consensus goes with --head per-layer; for a probe take expected or shortest")

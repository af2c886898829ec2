"""The request of a router's training. The module imports no framework, so that ``train --help`` starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.errors.fields import option
from pipeline.storage import AnyPath
from router.heads.head_request import HeadRequest
from router.heads.per_layer.per_layer_request import PerLayerRequest
from router.labels.label_request import LabelRequest


@dataclass(frozen=True, kw_only=True)
class TrainRequest(LabelRequest):
    """The request of ``drllm-pipeline train``.

    Raises:
        UserError: A field is out of its range, or excludes another one.
    """

    out: AnyPath
    """Router folder."""
    base: str | None = None
    """Hub id, folder or .gguf file of the searched model, if it lies elsewhere now."""
    head: HeadRequest = field(default_factory=PerLayerRequest)
    """The kind of router, and how it is trained."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache"))
    """Folder of the prompts' features."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors that read prompts."""
    wandb: str | None = field(default=None, metadata=option(metavar="PROJECT"))
    """Also report to Weights & Biases."""
    overwrite: bool = False
    """Replace the router that --out holds; its evaluation, which judged other weights, is removed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = self.head.label_choices
        if self.labels not in choices:
            raise UserError(
                f"--labels {self.labels} does not go with --head {self.head.name}; choose one of: {', '.join(choices)}"
            )

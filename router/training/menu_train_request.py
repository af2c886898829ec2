"""The request of a training of per-layer routers on a menu. The module imports no framework."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.distributed.cluster import Resources
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath
from router.heads.per_layer.per_layer_request import PerLayerRequest


@dataclass(frozen=True, kw_only=True)
class MenuTrainRequest:
    """The request of ``drllm-pipeline train --menu MENU --head per-layer``.

    Raises:
        UserError: A field is out of its range.
    """

    menu: AnyPath
    """Menu folder."""
    out: AnyPath
    """Router folder."""
    base: str | None = None
    """Hub id, folder or .gguf file of the base model, if it lies elsewhere now."""
    head: PerLayerRequest = field(default_factory=PerLayerRequest)
    """The routers, and how they are trained."""
    rounds: int = field(default=1, metadata=option(at_least=0))
    """With --menu and --head per-layer: further trainings, each on the states along the routers' own programs too."""
    layer_price: float = field(default=0.0, metadata=option(at_least=0))
    """Price of a layer, in right answers per example."""
    held_out: float = field(default=0.1, metadata=option(above=0, below=1))
    """Share of the examples that decide no label: early stopping is decided on them, and the router judged."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache"))
    """Folder of the prompts' features."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors that read prompts."""
    wandb: str | None = field(default=None, metadata=option(metavar="PROJECT"))
    """Also report to Weights & Biases."""
    overwrite: bool = False
    """Replace the router that --out holds; its evaluation, which judged other weights, is removed."""

    def __post_init__(self) -> None:
        check_fields(self)

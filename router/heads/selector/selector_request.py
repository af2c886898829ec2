"""The request of a selector's training. The module imports no framework, so that ``train --help`` starts at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.distributed.cluster import Resources
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath


@dataclass(frozen=True, kw_only=True)
class SelectorRequest:
    """The request of ``drllm-pipeline train --menu``.

    Raises:
        UserError: A field is out of its range.
    """

    menu: AnyPath
    """Menu folder, instead of --data: trains a selector among its programs."""
    out: AnyPath
    """Router folder."""
    base: str | None = None
    """Hub id, folder or .gguf file of the base model, if it lies elsewhere now."""
    exit: int | None = field(default=None, metadata=option(at_least=1, unset="the one that validates best"))
    """With --menu: layers that run before the choice. Programs that change them are left out."""
    feedback: Path | None = None
    """With --menu: file of outcomes after deployment, as JSON lines with prompt, program, and right or score. They
    count beside the menu's own."""
    layer_price: float = field(default=0.0, metadata=option(at_least=0))
    """Price of a layer, in right answers per example."""
    seed: int = 0
    """Seed of the folds."""
    features: Path | None = field(default=None, metadata=option(unset="the user's cache"))
    """Folder of the prompts' features."""
    resources: Resources = field(default_factory=Resources)
    """Resources of the actors that read prompts."""
    overwrite: bool = False
    """Replace the router that --out holds; its evaluation, which judged other weights, is removed."""

    def __post_init__(self) -> None:
        check_fields(self)

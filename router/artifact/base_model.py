"""The frozen model that something was trained on: by name and revision, and no other will do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model


@dataclass(frozen=True, kw_only=True)
class BaseModelRef:
    """Which frozen model a router or a probe belongs to.

    Attributes:
        name: A hub id, an embedded name, or a folder where it was trained.
        revision: Pins its weights: the hub's commit, or a SHA-256 over local files.
    """

    name: str
    revision: str


def find_base(base: BaseModelRef, elsewhere: str | None = None, *, kind: str) -> ModelSource:
    """The base model of a router or a probe, at the very revision that it was trained on.

    Args:
        base: The base model.
        elsewhere: Where it lies, if not where that was trained.
        kind: What was trained on it, for messages: ``router`` or ``probe``.

    Raises:
        UserError: It cannot be found, or is another one.
    """
    name = elsewhere or base.name
    try:
        source = resolve_model(name)
    except UserError as error:
        raise UserError(
            f"the {kind}'s base model {base.name!r} is not there ({error}); say where it lies: --base, or base="
        ) from None
    trained_on_hub = not base.revision.startswith("sha256:")
    if trained_on_hub != (source.hub_revision is not None):
        where = ("on the hub", "from local files")
        raise UserError(
            f"{name!r} cannot be told to be the model that the {kind} was trained on: that was {base.name!r} "
            f"{where[not trained_on_hub]}, this one comes {where[trained_on_hub]}, and their revisions do not compare"
        )
    if trained_on_hub and name == base.name:
        return replace(source, revision=base.revision)  # the hub keeps older ones
    if source.revision != base.revision:
        raise UserError(
            f"{name!r} is not the model that the {kind} was trained on: its revision is {source.revision[:19]}…, "
            f"the {kind}'s base ({base.name}) has {base.revision[:19]}…"
        )
    return source


def mark(*parts: str) -> int:
    """A number that stands for a text: which prompts a router knows can be told without handing them out."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)

"""The base model that a router or a probe was trained on, by name and revision."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.model_source import ModelSource, resolve_model


@dataclass(frozen=True, kw_only=True)
class BaseModelRef:
    """A reference to the base model of a router or a probe.

    Attributes:
        name: A hub id, an embedded name, or its folder at the training.
        revision: Pins its weights: the hub's commit, or a SHA-256 over local files.
    """

    name: str
    revision: str


def find_base(base: BaseModelRef, elsewhere: str | None = None, *, kind: str) -> ModelSource:
    """Find the base model of a router or a probe, at the revision of its training.

    Args:
        base: The base model.
        elsewhere: Location of the base model, if another than in training.
        kind: ``router`` or ``probe``, for messages.

    Raises:
        UserError: The model cannot be found, or has another revision.
    """
    name = elsewhere or base.name
    try:
        source = resolve_model(name)
    except UserError as error:
        raise UserError(
            f"the {kind}'s base model {base.name!r} cannot be found ({error}); give its path: --base, or base="
        ) from None
    trained_on_hub = not base.revision.startswith("sha256:")
    if trained_on_hub != (source.hub_revision is not None):
        there, here = ("the hub", "local files") if trained_on_hub else ("local files", "the hub")
        raise UserError(
            f"{name!r} cannot be compared with the model that the {kind} was trained on: that was {base.name!r} from "
            f"{there}, this one comes from {here}, and their revisions differ in kind"
        )
    source = pinned(source, base)
    require_revision(source, base, what=f"the model that the {kind} was trained on")
    return source


def pinned(source: ModelSource, base: BaseModelRef) -> ModelSource:
    """A model of the hub at the base model's revision, if it has its name: the hub keeps older ones."""
    on_hub = source.hub_revision is not None and not base.revision.startswith("sha256:")
    return replace(source, revision=base.revision) if on_hub and source.name == base.name else source


def require_revision(source: ModelSource, base: BaseModelRef, *, what: str, hint: str | None = None) -> None:
    """Refuse a model with other weights than the base model.

    Args:
        source: The model that was found.
        base: The base model.
        what: Description of the base model in the message: ``the model that was searched``.
        hint: Advice at the end of the message.

    Raises:
        UserError: The revisions differ.
    """
    if source.revision != base.revision:
        raise UserError(
            f"{source.name!r} is not {what}: its revision is {short_revision(source.revision)}, that of {base.name} "
            f"is {short_revision(base.revision)}" + ("" if hint is None else f"; {hint}")
        )


def lasting_name(name: str) -> str:
    """A base model's name that holds in any working directory."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def short_revision(revision: str) -> str:
    """The first characters of a revision, for messages."""
    return f"{revision[:19]}…"


def text_fingerprint(*parts: str) -> int:
    """A 64-bit number of a text: a router keeps those of the prompts it was trained on, instead of the prompts."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)

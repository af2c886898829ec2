"""The configuration of a kind of router: a protocol that each kind's request dataclass fulfils. No framework here."""

from __future__ import annotations

from dataclasses import Field
from typing import Any, ClassVar, Protocol


class HeadRequest(Protocol):
    """A kind's own configuration, a frozen dataclass whose fields are options of the training."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    name: ClassVar[str]
    """Name of the kind, in ``--head`` and in ``config.json``."""
    label_choices: ClassVar[tuple[str, ...]]
    """Values of ``--labels`` that go with the kind."""

    @property
    def seed(self) -> int:
        """Seed of the held-out examples, and of everything random in the training."""
        ...

"""The configuration of a kind of router: a protocol that each kind's request dataclass fulfils. No framework here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, Self


class HeadRequest(Protocol):
    """A kind's own configuration, a frozen dataclass: what is trained, and how."""

    name: ClassVar[str]
    """Name of the kind, in ``--head`` and in ``config.json``."""
    label_choices: ClassVar[tuple[str, ...]]
    """Values of ``--labels`` that go with the kind."""
    own_options: ClassVar[frozenset[str]]
    """Options of ``drllm-pipeline train`` that only this kind has."""

    @property
    def seed(self) -> int:
        """Seed of the held-out examples, and of everything random in the training."""
        ...

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The request that the options of ``drllm-pipeline train`` describe.

        Raises:
            ValueError: An option is out of its range; the message begins with its name.
        """
        ...

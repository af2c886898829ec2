"""More examples for a run that there is already: which settings then differ, and which may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import UserError
from pipeline.shards.run_config import RunConfig, fingerprints
from pipeline.tasks.types import Example

#: The settings that say which examples a run has.
OF_THE_EXAMPLES = frozenset(["limit", "data_sha256", "extended_at"])


def extended(config: RunConfig, stored: Mapping[str, Any], examples: Sequence[Example]) -> RunConfig | None:
    """The settings of a stored run that gets the examples of this call.

    Args:
        config: The settings of this call.
        stored: The settings of the run in the folder.
        examples: The examples of this call.

    Returns:
        The settings, with the number of examples that the run has had; None if the run's examples are not the first
        ones of this call, unchanged and in their order.
    """
    if config.data_sha256 == stored.get("data_sha256"):
        return config
    for number, sha256 in enumerate(fingerprints(examples), 1):
        if sha256 == stored.get("data_sha256"):
            return replace(config, extended_at=(*config.extended_at, number))
    return None


def boundaries(stored: Mapping[str, Any]) -> tuple[int, ...]:
    """The numbers of examples at which a stored run was extended; none where the settings hold no such key.

    Raises:
        UserError: The settings hold something else than such numbers.
    """
    numbers = stored.get("extended_at", [])
    valid = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if not valid or numbers != sorted(set(numbers)) or min(numbers, default=1) < 1:
        raise UserError(
            f"run.json holds no rising numbers of examples in settings.extended_at, but {numbers!r}: it was damaged or "
            "edited; restore it from a copy, or give a new folder to --out"
        )
    return tuple(numbers)

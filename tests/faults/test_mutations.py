"""The guards that ``mutations.py`` takes away, which needs minutes: here only whether they are still there."""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, REPOSITORY


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.tests)
def test_every_guard_is_where_it_is_said_to_be(mutation):
    """Catches a guard that was rewritten, or is gone, while the list of those that were tried still names it."""
    for file, guard, without in mutation.changes:
        assert (REPOSITORY / file).read_text().count(guard) >= 1, f"{file} has no {guard!r}"
        assert guard != without

"""The guards that ``mutations.py`` takes away, which needs minutes: here only whether they are there, and can be."""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, Guard, returns

GUARDS = {guard.name: guard for mutation in MUTATIONS for guard in mutation.guards}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.tests)
def test_every_guard_is_where_it_is_said_to_be(mutation):
    """Catches a guard that was renamed, or is gone, while the list of those that were tried still names it."""
    for guard in mutation.guards:
        owner, name = guard.owner()
        assert vars(owner).get(name) is not None, f"{guard.name} is inherited or imported: nothing would change"
        assert guard.without(getattr(owner, name)) != getattr(owner, name)


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_stays_what_it_was(name, monkeypatch):
    """Catches a static method that is passed an object once it is replaced, and a constant that becomes a method."""
    guard = GUARDS[name]
    owner, attribute = guard.owner()
    before = vars(owner)[attribute]
    monkeypatch.setattr(owner, attribute, before)  # restored at the end
    guard.remove()
    after = vars(owner)[attribute]
    assert after is not before
    assert isinstance(after, staticmethod) == isinstance(before, staticmethod)
    assert callable(after) == callable(before)


def test_a_guard_that_is_gone_is_named():
    """Catches a mutation that adds a new name, changes nothing, and is said to survive."""
    with pytest.raises(AttributeError, match="_no_such_method"):
        Guard("pipeline.storage.lease:Lease._no_such_method", returns(None)).remove()

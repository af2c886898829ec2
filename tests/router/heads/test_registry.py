"""The table of the kinds of routers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from router.heads.registry import HEAD_KINDS, find_kind, kind_of


@dataclass(frozen=True, kw_only=True)
class OtherRequest:
    """A request of no kind."""

    name = "other"
    label_choices = ("shortest",)


def test_a_kind_is_found_by_its_name_and_by_its_request():
    """Catches two kinds of one name or one request, of which one is never found."""
    for name, kind in HEAD_KINDS.items():
        assert find_kind(name) is kind and kind_of(kind.request()) is kind


def test_a_request_that_the_table_lacks_names_the_table():
    """Catches a StopIteration where a new kind's record was forgotten."""
    with pytest.raises(LookupError, match=r"HEAD_KINDS in router\.heads\.registry has no kind .* OtherRequest; add it"):
        kind_of(OtherRequest())

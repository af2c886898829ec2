"""Work groups of a run, as numbers: what an extension changes, and what it leaves."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from shard_rows import CONFIG

from pipeline.shards.calibration import calibration_groups, num_calibrating
from pipeline.shards.group_ranges import group_ranges

PARTS = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(parts=PARTS, group_size=st.integers(1, 9))
def test_an_extension_changes_no_group(parts, group_size):
    """Catches an example in two groups or in none, and a committed group that would get other examples."""
    totals = [sum(parts[: number + 1]) for number in range(len(parts))]
    before: list[range] = []
    for number, total in enumerate(totals):
        groups = group_ranges(total, group_size, totals[:number])
        assert groups[: len(before)] == before
        assert [place for group in groups for place in group] == list(range(total))
        assert all(1 <= len(group) <= group_size for group in groups)
        before = groups


@given(parts=PARTS, group_size=st.integers(1, 9), calibration=st.integers(0, 60))
def test_the_calibration_set_is_the_first_groups_with_enough_examples(parts, group_size, calibration):
    """Catches a prior that is fitted to fewer examples than the settings say, or to more groups than it needs."""
    bounds, total = [sum(parts[: number + 1]) for number in range(len(parts) - 1)], sum(parts)
    config = replace(CONFIG, group_size=group_size, calibration=calibration, extended_at=tuple(bounds))
    groups = group_ranges(total, group_size, bounds)
    first = groups[: len(calibration_groups(config))]
    assert num_calibrating(config, total) == sum(map(len, first)) >= min(calibration, total)
    assert not first or sum(map(len, first[:-1])) < calibration

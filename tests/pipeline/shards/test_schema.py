"""Rows as a table: a column's mistakes are named."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.shards.schema import table_of

SCHEMA = pa.schema([pa.field("length", pa.int16(), nullable=False), pa.field("response", pa.string())])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"length": "four"}, "column 'length' must hold int16: "),
        ({"length": 1 << 20}, "column 'length' must hold int16: "),
        ({"length": None}, "column 'length' must hold int16, and path_row gives it no value$"),
        ({}, "column 'length' must hold int16, and path_row gives it no value$"),
    ],
)
def test_a_value_that_its_column_does_not_hold_is_refused_by_name(row, message):
    """Catches an error of Arrow, which names no column."""
    with pytest.raises(ValueError, match=message):
        table_of([{"length": 4}, row], SCHEMA)


def test_rows_become_the_table_that_arrow_makes():
    """Catches a column left out, or a null refused where it is allowed."""
    rows = [{"length": 4, "response": "a"}, {"length": 3, "response": None}, {"length": 2}]
    assert table_of(rows, SCHEMA).equals(pa.Table.from_pylist(rows, schema=SCHEMA))

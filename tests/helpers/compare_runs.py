"""Do two run folders hold the same rows? Compares every column of their committed rows.

python tests/helpers/compare_runs.py RUN RUN
"""

from __future__ import annotations

import sys

import pandas as pd

from pipeline import read_paths


def differing_columns(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """The columns in which two runs' rows differ; lists are compared as they are, and NaN equals NaN.

    Raises:
        ValueError: They have other columns, or another number of rows.
    """
    if list(one.columns) != list(other.columns):
        raise ValueError(f"other columns: {sorted(set(one.columns) ^ set(other.columns))}, or another order")
    if len(one) != len(other):
        raise ValueError(f"{len(one)} rows and {len(other)} rows")
    return [name for name in one.columns if list(map(repr, one[name])) != list(map(repr, other[name]))]


def main(one: str, other: str) -> int:
    """Print what differs; the exit code."""
    rows, others = read_paths(one), read_paths(other)
    try:
        differing = differing_columns(rows, others)
    except ValueError as error:
        print(error)
        return 1
    print(f"{len(rows)} rows, {len(rows.columns)} columns, differing: {', '.join(differing) or 'none'}")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))

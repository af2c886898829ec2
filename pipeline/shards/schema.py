"""The columns of a path data set: a record each, and a version that says which of them a run has.

A run keeps the columns of its own version: a search that resumes it writes no others. ``read_paths`` adds those that
came later, with their default. A run of a version that is newer than ``SCHEMA_VERSION`` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.shards.run_config import SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column of a path data set.

    Raises:
        ValueError: The column came later than the schema's version.
    """

    name: str
    """Name of the column, and of ``path_row``'s key."""
    type: pa.DataType
    """Arrow type of the column's values."""
    meaning: str
    """Meaning of the column's values, for the data set card."""
    nullable: bool = False
    """Whether a row may have no value."""
    since: int = 1
    """First schema version that has the column."""
    default: Any = None
    """The value that is read for rows of runs of an older version."""
    with_renderings: bool = False
    """Whether only runs with several renderings of each example have the column (``--permutations``)."""

    def __post_init__(self) -> None:
        if not 1 <= self.since <= SCHEMA_VERSION:
            raise ValueError(f"column {self.name!r} is of schema version {self.since}, the schema of {SCHEMA_VERSION}")

    @property
    def field(self) -> pa.Field:
        """The column as Arrow has it."""
        return pa.field(self.name, self.type, nullable=self.nullable)

    def is_in(self, *, version: int, renderings: bool) -> bool:
        """Whether a run's shards have the column.

        Args:
            version: The run's schema version.
            renderings: Whether the run has several renderings of each example.
        """
        return self.since <= version and (renderings or not self.with_renderings)


def _list_of(item: pa.DataType) -> pa.DataType:
    """A list whose items bear Parquet's own name, so that a file reads back with this very schema."""
    return pa.list_(pa.field("element", item))


#: Every column, in the order in which shards have them.
COLUMNS = (
    Column(
        name="example_id",
        type=pa.string(),
        meaning="the example; one identity row and the programs that the run keeps (`--keep`) each",
    ),
    Column(name="task", type=pa.string(), meaning="the task's name"),
    Column(
        name="prompt",
        type=pa.string(),
        meaning="the exact text given to the tokenizer, chat template applied where the task has one",
    ),
    Column(name="answer", type=pa.string(), meaning="the reference answer"),
    Column(name="response", type=pa.string(), nullable=True, meaning="the answer under the program"),
    Column(name="program", type=_list_of(pa.int16()), meaning="the layers that ran, in order"),
    Column(
        name="counts",
        type=_list_of(pa.int8()),
        nullable=True,
        meaning="number of times that each layer ran; null where the program does not keep the layers' order",
    ),
    Column(name="length", type=pa.int16(), meaning="layers run: the program's length"),
    Column(name="num_layers", type=pa.int16(), meaning="the model's depth L"),
    Column(name="saved_layers", type=pa.int16(), meaning="L - length"),
    Column(
        name="correct",
        type=pa.bool_(),
        meaning="whether the program's answer is right; with `--permutations`, in every rendering of the example",
    ),
    Column(
        name="correct_as_asked",
        type=pa.bool_(),
        with_renderings=True,
        meaning="only with `--permutations`: whether the answer in the first rendering is right",
    ),
    Column(
        name="reason",
        type=pa.string(),
        nullable=True,
        since=2,
        meaning=(
            "why the answer is right or wrong: `ended` (right), `no final answer`, `cut` at the limit on its tokens, "
            "`unequal`, `tie` (equal logits), `ungradable`; null in runs of version 1 and converted ones"
        ),
    ),
    Column(
        name="score",
        type=pa.float32(),
        meaning="the margin: distance of the logits from the opposite result, positive where right",
    ),
    Column(
        name="baseline_correct",
        type=pa.bool_(),
        meaning="whether the base model is right on this example",
    ),
    Column(
        name="is_best",
        type=pa.bool_(),
        meaning="the shortest right program within the budget, then the one of the largest margin",
    ),
    Column(
        name="rank",
        type=pa.int16(),
        meaning="rank among the right programs within the budget, from 1; 0 for a row that is not one of them",
    ),
    Column(
        name="simulations",
        type=pa.int32(),
        meaning="programs that the search tried on this example beside the identity program",
    ),
    Column(name="evaluations", type=pa.int32(), meaning="distinct programs run on this example"),
    Column(
        name="layer_executions",
        type=pa.int64(),
        meaning="layers of the programs tried, summed over rows and passes; shared prefixes count for each program",
    ),
    Column(name="model", type=pa.string(), meaning="the model's name, as given to `--model`"),
    Column(name="run_id", type=pa.string(), meaning="id of the run, from a hash of its settings"),
)


def columns_of(settings: Mapping[str, Any], *, version: int | None = None) -> list[Column]:
    """The columns of a run with those settings, in order.

    Args:
        settings: The run's settings; without a ``schema_version`` the first one is meant.
        version: The schema version; None for the run's own.
    """
    version = settings.get("schema_version", 1) if version is None else version
    renderings = settings.get("permutations", 1) != 1
    return [column for column in COLUMNS if column.is_in(version=version, renderings=renderings)]


def schema_of(settings: Mapping[str, Any], *, version: int | None = None) -> pa.Schema:
    """The columns of a run with those settings, as Arrow has them; see ``columns_of``."""
    return pa.schema([column.field for column in columns_of(settings, version=version)])


#: The columns of a new run with one rendering of each example.
SCHEMA = schema_of({}, version=SCHEMA_VERSION)


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of the schema's columns.

    Raises:
        ValueError: A row lacks a column's value, or it is of another type; the message names the column.
    """
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if not field.nullable and None in values:
            raise ValueError(f"column {field.name!r} must hold {field.type}, and path_row gives it no value")
        columns.append(_array(values, field))
    return pa.Table.from_arrays(columns, schema=schema)


def with_newer_columns(table: pa.Table, settings: Mapping[str, Any]) -> pa.Table:
    """The rows of a run, with each column that came after the run's version at its default.

    Raises:
        ValueError: A default is not of its column's type.
    """
    for index, column in enumerate(columns_of(settings, version=SCHEMA_VERSION)):
        if column.name not in table.column_names:
            table = table.add_column(index, column.field, _array([column.default] * table.num_rows, column.field))
    return table


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, type=field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"column {field.name!r} must hold {field.type}: {error}") from None

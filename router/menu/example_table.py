"""The examples of a menu as a table: what its programs ran on, and what routers that are trained on it have seen.

MENU/examples.parquet    one row for each example, in the order of the race
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage import AnyPath, content
from pipeline.storage.parquet import parquet_bytes
from pipeline.tasks import Example

FILE = "examples.parquet"
SCHEMA = pa.schema(
    [
        pa.field("place", pa.int32(), metadata={"description": "Place of the example in the order of the race."}),
        pa.field("example_id", pa.string(), metadata={"description": "Id of the example."}),
        pa.field("task", pa.string(), metadata={"description": "Name of its task."}),
        pa.field("prompt", pa.string(), metadata={"description": "The exact text given to the tokenizer."}),
        pa.field("answer", pa.string(), metadata={"description": "The reference answer."}),
        pa.field("example", pa.string(), metadata={"description": "The whole example, as JSON."}),
    ]
)


def encoded_examples(examples: Sequence[Example]) -> bytes:
    """The table of examples, as a Parquet file."""
    columns = [
        list(range(len(examples))),
        [example.id for example in examples],
        [example.task for example in examples],
        [example.prompt for example in examples],
        [example.answer for example in examples],
        [json.dumps(example.to_json(), ensure_ascii=False) for example in examples],
    ]
    return parquet_bytes(pa.table(columns, schema=SCHEMA))


def read_menu_examples(menu: AnyPath) -> pd.DataFrame:
    """A menu's examples, in the order of the race.

    Raises:
        UserError: The folder holds none, or the file is damaged.
    """
    try:
        table = pq.read_table(pa.BufferReader(content(menu / FILE)))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{menu / FILE} cannot be read ({error}): is {menu} a menu?") from None
    if not table.schema.equals(SCHEMA):
        raise UserError(f"{menu / FILE} has other columns than this release writes")
    rows: pd.DataFrame = table.to_pandas()
    return rows


def examples_of_menu(rows: pd.DataFrame) -> list[Example]:
    """The examples in a menu's table, whole.

    Raises:
        UserError: The table is damaged.
    """
    try:
        return [Example.from_json(json.loads(text)) for text in rows.example]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{FILE} of the menu holds an example that cannot be read: {error}") from None

"""The matrix of a menu: the outcomes of programs on examples, in Parquet, a shard for each chunk that an actor ran.

MENU/matrix/*.parquet    one row for each example and program

A shard is there whole or not at all (``pipeline.storage``), and its name follows from its rows: a crash loses the
chunks that were under way, and the same command runs what is missing, deleted shards included.

Shapes: N examples, M programs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress, pairwise
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import AnyPath, Writer, content, entries
from pipeline.storage.parquet import parquet_bytes
from router.menu.racing import Outcomes

Array = np.ndarray[Any, Any]
One = TypeVar("One")

FOLDER = "matrix"
SCHEMA = pa.schema(
    [
        pa.field("place", pa.int32(), metadata={"description": "Place of the example in the order of the race."}),
        pa.field("example_id", pa.string(), metadata={"description": "Id of the example."}),
        pa.field("program", pa.string(), metadata={"description": "The program's layers in order, as 0-4,6-29."}),
        pa.field("length", pa.int32(), metadata={"description": "Number of layers of the program."}),
        pa.field(
            "right", pa.float32(), metadata={"description": "Share of the example's renderings answered right, 0 to 1."}
        ),
        pa.field(
            "margin",
            pa.float32(),
            metadata={"description": "Smallest distance of the logits from the opposite result, over the renderings."},
        ),
    ]
)
#: What a shard's outcomes cost, in the file's metadata.
_RUN, _SEPARATELY = b"tokens_run", b"tokens_of_separate_runs"
#: Most examples, and programs, that one shard, and so one chunk of an actor, holds: enough for openings and prefixes to
#: be shared, and few enough for a crash to cost little.
MOST_EXAMPLES, MOST_PROGRAMS = 16, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """The cost of some outcomes, in layers times tokens.

    Attributes:
        run: Tokens of all layers that ran. What programs share, and what texts share, ran once.
        separately: Tokens of all layers, had each program run on each text by itself.
    """

    run: int
    separately: int

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(run=self.run + other.run, separately=self.separately + other.separately)


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixChunk:
    """Some examples, and the programs that have no outcome on any of them.

    Attributes:
        places: Places of the examples.
        programs: The programs.
    """

    places: tuple[int, ...]
    programs: tuple[LayerProgram, ...]

    def __len__(self) -> int:
        return len(self.places) * len(self.programs)


class Matrix:
    """The outcomes of programs on the examples of a menu.

    Args:
        root: The menu's folder.
        example_ids: The examples' ids, in the order of the race.
        num_layers: Depth L of the model.

    Raises:
        UserError: A shard cannot be read, is damaged, or is of other examples.
    """

    def __init__(self, root: AnyPath, example_ids: Sequence[str], *, num_layers: int) -> None:
        self._ids = list(example_ids)
        self._num_layers = num_layers
        self._right: dict[LayerProgram, Array] = {}
        self._margins: dict[LayerProgram, Array] = {}
        #: The cost of the outcomes so far.
        self.cost = LayerCost(run=0, separately=0)
        for shard in shards_of(root):
            table = _read(shard)
            self._remember(table.to_pandas(), shard)
            noted = table.schema.metadata or {}
            self.cost += LayerCost(run=int(noted.get(_RUN, 0)), separately=int(noted.get(_SEPARATELY, 0)))

    @property
    def evaluations(self) -> int:
        """Number of outcomes: pairs of an example and a program."""
        return sum(int(np.isfinite(right).sum()) for right in self._right.values())

    def missing(self, programs: Sequence[LayerProgram], places: Sequence[int]) -> list[MatrixChunk]:
        """What has no outcome yet, in chunks of examples that miss the same programs.

        Args:
            programs: The programs.
            places: Places of the examples; neighbours come into one chunk.
        """
        # Programs that begin alike lie side by side.
        ordered = sorted(programs, key=lambda program: program.layers)
        absent = np.array([np.isnan(self._column(self._right, program)[places]) for program in ordered])
        alike: dict[bytes, list[int]] = {}
        for index, place in enumerate(places):
            alike.setdefault(absent[:, index].tobytes(), []).append(place)
        return [
            MatrixChunk(places=tuple(some), programs=tuple(wanted))
            for pattern, of_pattern in alike.items()
            for wanted in _parts(list(compress(ordered, np.frombuffer(pattern, dtype=bool))), MOST_PROGRAMS)
            for some in _parts(of_pattern, MOST_EXAMPLES)
        ]

    def outcomes(self, programs: Sequence[LayerProgram], places: range) -> Outcomes:
        """The outcomes of programs on the examples at some places, ``[N, M]``.

        Raises:
            ValueError: One is missing.
        """
        right = np.stack([self._column(self._right, program)[places] for program in programs], axis=1)
        margins = np.stack([self._column(self._margins, program)[places] for program in programs], axis=1)
        if np.isnan(right).any():
            raise ValueError(f"{int(np.isnan(right).sum())} outcomes are missing")
        return Outcomes(right=right, margins=margins)

    def add(self, chunk: MatrixChunk, outcomes: Outcomes, *, cost: LayerCost, writer: Writer) -> None:
        """Keep the outcomes of a chunk: write its shard, and remember it.

        Args:
            chunk: The chunk.
            outcomes: Its outcomes, ``[N, M]``.
            cost: Their cost.
            writer: The writer of the menu's folder.

        Raises:
            StorageError: The shard cannot be written.
        """
        rows = pd.DataFrame(
            [
                (
                    place,
                    self._ids[place],
                    str(program),
                    len(program),
                    float(outcomes.right[row, column]),
                    float(outcomes.margins[row, column]),
                )
                for row, place in enumerate(chunk.places)
                for column, program in enumerate(chunk.programs)
            ],
            columns=SCHEMA.names,
        )
        table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
        table = table.replace_schema_metadata({_RUN: str(cost.run), _SEPARATELY: str(cost.separately)})
        named = "\n".join(f"{place} {program}" for place, program in zip(rows.place, rows.program))
        digest = hashlib.sha256(named.encode()).hexdigest()[:16]
        written = parquet_bytes(table)
        writer.write(f"{FOLDER}/{chunk.places[0]:07d}-{digest}.parquet", written, _equals(written))
        for column, program in enumerate(chunk.programs):
            self._column(self._right, program)[list(chunk.places)] = outcomes.right[:, column]
            self._column(self._margins, program)[list(chunk.places)] = outcomes.margins[:, column]
        self.cost += cost

    def _column(self, columns: dict[LayerProgram, Array], program: LayerProgram) -> Array:
        """A program's outcomes on all examples, NaN where there is none, ``[N]``."""
        if program not in columns:
            columns[program] = np.full(len(self._ids), np.nan, dtype=np.float32)
        return columns[program]

    def _remember(self, rows: pd.DataFrame, shard: AnyPath) -> None:
        places = rows.place.to_numpy()
        known = len(rows) == 0 or (places.min() >= 0 and places.max() < len(self._ids))
        if not known or [self._ids[place] for place in places] != list(rows.example_id):
            raise UserError(f"{shard} holds outcomes on other examples than the menu's; remove it, and run menu again")
        for text, of_program in rows.groupby("program", sort=False):
            try:
                program = LayerProgram.parse(str(text), self._num_layers)
            except ValueError as error:
                raise _damaged(shard, error) from None
            some = of_program.place.to_numpy()
            self._column(self._right, program)[some] = of_program.right.to_numpy()
            self._column(self._margins, program)[some] = of_program.margin.to_numpy()


def read_matrix(menu: AnyPath) -> pd.DataFrame:
    """A menu's matrix, one row for each example and program, in the order of the race.

    Raises:
        UserError: The folder holds no matrix, or a shard is damaged.
    """
    shards = shards_of(menu)
    if not shards:
        raise UserError(f"{menu} holds no outcomes: is it a menu?")
    rows = pd.concat([_read(shard).to_pandas() for shard in shards], ignore_index=True)
    in_order: pd.DataFrame = rows.sort_values(["place", "length", "program"], ignore_index=True)
    return in_order


def shards_of(menu: AnyPath) -> list[AnyPath]:
    """The shards of a menu's matrix, in the order of their names.

    Raises:
        UserError: The folder cannot be read.
    """
    try:
        return sorted(entries(menu / FOLDER, ".parquet"), key=lambda shard: shard.name)
    except OSError as error:
        raise UserError(f"{menu / FOLDER} cannot be read: {error.strerror or error}") from None


def _parts(several: Sequence[One], most: int) -> list[Sequence[One]]:
    """Several things in parts of about equal size, none larger than ``most``."""
    number = -(-len(several) // most)
    borders = [len(several) * part // number for part in range(number + 1)] if number else []
    return [several[start:end] for start, end in pairwise(borders)]


def _read(shard: AnyPath) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(content(shard)))
    except (OSError, pa.ArrowException) as error:
        raise _damaged(shard, error) from None
    if not table.schema.equals(SCHEMA):
        raise _damaged(shard, "it has other columns")
    return table


def _damaged(shard: AnyPath, reason: object) -> UserError:
    return UserError(f"{shard} is damaged ({reason}); remove it, and run the same menu command again")


def _equals(written: bytes) -> Callable[[bytes], None]:
    """A check that a store reads back what was written."""

    def check(stored: bytes) -> None:
        if stored != written:
            raise OSError("it does not read back as it was written")

    return check

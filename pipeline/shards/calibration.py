"""The calibration set: the first examples of a run are searched without a prior, which is then fitted to them.

    RUN/calibration/*.parquet   the evaluations of their searches, a file a work group
    RUN/prior.safetensors       the prior, once all calibration groups are committed

The prior is fitted once and never updated, so the rows depend neither on the order of the groups nor on the actors.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.prior import Evaluation, Prior
from pipeline.program import LayerProgram
from pipeline.shards.group_ranges import group_ranges
from pipeline.shards.run_config import RunSettings
from pipeline.storage import (
    AnyPath,
    PathOrUrl,
    Retries,
    UnreachableError,
    content,
    is_folder,
    is_there,
    local_copy,
    locate,
)

FOLDER = "calibration"
PRIOR_FILE = "prior.safetensors"

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("program", pa.list_(pa.field("element", pa.int16())), nullable=False),
        pa.field("num_layers", pa.int16(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)


def calibration_groups(config: RunSettings) -> range:
    """The work groups of the calibration set: the first ones, with at least as many examples as the settings say."""
    return range(len(group_ranges(config.calibration, config.group_size, config.extended_at)))


def num_calibrating(config: RunSettings, num_examples: int) -> int:
    """The number of examples of a run that are searched without a prior, in whole work groups."""
    groups = group_ranges(num_examples, config.group_size, config.extended_at)[: len(calibration_groups(config))]
    return groups[-1].stop if groups else 0


def to_table(evaluations: Sequence[Evaluation]) -> pa.Table:
    """Evaluations as a file holds them."""
    return pa.Table.from_pylist(
        [
            {
                "example_id": evaluation.example_id,
                "program": list(evaluation.program.layers),
                "num_layers": evaluation.program.num_layers,
                "correct": evaluation.correct,
                "score": evaluation.margin,
            }
            for evaluation in evaluations
        ],
        schema=SCHEMA,
    )


def read_evaluations(file: AnyPath, *, retries: Retries = Retries.SHORT) -> list[Evaluation]:
    """A work group's evaluations.

    Raises:
        UserError: The file cannot be read, or holds something else.
        UnreachableError: The store cannot be reached; the file may be sound.
    """
    try:
        table = pq.read_table(pa.BufferReader(content(file, retries=retries)))
        if not table.schema.equals(SCHEMA):
            raise ValueError("its columns differ from those of a calibration file")
        return [
            Evaluation(
                example_id=row["example_id"],
                program=LayerProgram(row["program"], row["num_layers"]),
                correct=row["correct"],
                margin=row["score"],
            )
            for row in table.to_pylist()
        ]
    except UnreachableError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file} holds no evaluations: {error}; delete it, and its group is searched again") from None


def read_prior(location: PathOrUrl, *, retries: Retries = Retries.SHORT) -> Prior:
    """A prior, from its file or from the folder of a run that fitted one.

    Raises:
        UserError: There is no prior.
    """
    path = locate(location)
    if is_folder(path, retries=retries):
        if not is_there(path / PRIOR_FILE, retries=retries):
            raise UserError(f"{path} holds no {PRIOR_FILE}: no run there has finished its calibration")
        path = path / PRIOR_FILE
    try:
        with local_copy(path, retries=retries) as file:
            try:
                return Prior.read(file)
            except UserError as error:
                raise UserError(str(error).replace(str(file), str(path))) from None  # a remote file was copied here
    except FileNotFoundError:
        raise UserError(f"there is no prior {path}") from None

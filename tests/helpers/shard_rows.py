"""Settings, rows and an open folder for the tests of what is on disk."""

from __future__ import annotations

from typing import Any

from pipeline.model_source import ModelSource
from pipeline.prior import Evaluation
from pipeline.program import LayerProgram
from pipeline.shards.path_row import PathRow, path_row
from pipeline.shards.reader import ShardRecord
from pipeline.shards.run_config import RunConfig
from pipeline.shards.run_folder import RunFolder

CONFIG = RunConfig(
    model=ModelSource(name="stub", location="here", revision="sha256:0"),
    task="arithmetic",
    data_sha256="0",
    device="cpu",
    dtype="float32",
)

EVALUATIONS = [Evaluation(example_id="a", program=LayerProgram((0, 2), 3), correct=True, margin=1.0)]


def planted_row(example: str, program: LayerProgram, **values: Any) -> PathRow:
    """A row of a right program.

    Args:
        example: The example's id.
        program: The program.
        values: What differs from the defaults below; see ``path_row``.
    """
    defaults: dict[str, Any] = {
        "task": "arithmetic",
        "prompt": "3 + 4 =",
        "answer": "7",
        "response": "7",
        "correct": True,
        "margin": 1.5,
        "baseline_correct": True,
        "rank": 1,
        "simulations": 5,
        "evaluations": 6,
        "layer_executions": 17,
        "model": "stub",
        "run_id": CONFIG.run_id,
    }
    return path_row(example_id=example, program=program, **{**defaults, **values})


def rows(example: str, *, counts: bool = True, response: str | None = "7") -> list[PathRow]:
    """The rows of a shorter right program and of the identity program."""
    both = [
        planted_row(example, LayerProgram((0, 2), 3), rank=1, response=response),
        planted_row(example, LayerProgram.identity(3), rank=2, response=response),
    ]
    return both if counts else [{**row, "counts": None} for row in both]


def opened(root) -> RunFolder:
    """The run folder, created or taken up."""
    folder = RunFolder(root)
    folder.open(CONFIG, provenance={})
    return folder


def reopened(folder: RunFolder, config: RunConfig = CONFIG) -> dict[int, ShardRecord]:
    """What the next call finds, after the process that held the folder is gone."""
    folder.close()
    return folder.open(config, provenance={})


class Crash(BaseException):
    """An error that no code handles."""


def finish(run: RunFolder) -> None:
    """All that a run writes."""
    run.describe_model({"num_layers": 3})
    run.commit(0, rows("a"), evaluations=EVALUATIONS, improvements={"a": [[0, 3], [2, 2]]})
    run.commit(1, rows("b"), failed={"c": "too long"})
    run.write_card("# A run")
    run.mark_complete()
    run.close()

"""Settings, rows and an open folder for the tests of what is on disk."""

from __future__ import annotations

from pipeline.model_source import ModelSource
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


def rows(example: str, *, counts: bool = True, response: str | None = "7") -> list[dict]:
    """The identity program's row, and a shorter right one's."""
    common = {
        "example_id": example,
        "task": "arithmetic",
        "prompt": "3 + 4 =",
        "answer": "7",
        "response": response,
        "num_layers": 3,
        "correct": True,
        "score": 1.5,
        "baseline_correct": True,
        "simulations": 5,
        "evaluations": 6,
        "layer_executions": 17,
        "model": "stub",
        "run_id": CONFIG.run_id,
    }
    shorter = {"program": [0, 2], "counts": [1, 0, 1] if counts else None, "length": 2, "saved_layers": 1}
    identity = {"program": [0, 1, 2], "counts": [1, 1, 1] if counts else None, "length": 3, "saved_layers": 0}
    return [{**common, **shorter, "is_best": True, "rank": 1}, {**common, **identity, "is_best": False, "rank": 2}]


def opened(root) -> RunFolder:
    """The run folder, created or taken up."""
    folder = RunFolder(root)
    folder.open(CONFIG, provenance={})
    return folder


def reopened(folder: RunFolder, config: RunConfig = CONFIG) -> dict[int, ShardRecord]:
    """What the next call finds, after the process that held the folder is gone."""
    folder.close()
    return folder.open(config, provenance={})

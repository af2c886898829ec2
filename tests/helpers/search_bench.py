"""A tiny model, questions, and the search command on them: what tests of whole searches share."""

from __future__ import annotations

from pathlib import Path

from tiny import save_tiny_model, write_questions

NUM_QUESTIONS = 24
#: Groups of two for the first five questions.
NUM_CALIBRATION_GROUPS = 3


class SearchBench:
    """A tiny model and questions in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        self.data = write_questions(folder / "questions.jsonl", NUM_QUESTIONS)

    def arguments(self, out: Path, *, actors: int) -> list[str]:
        """The words of the command behind ``drllm-pipeline``."""
        options = f"--task arc --simulations 120 --group-size 2 --calibration 5 --seed 3 --budget 1.5 --actors {actors}"
        return ["search", "--model", str(self.model), "--data", str(self.data), "--out", str(out), *options.split()]


def files_found(run: Path) -> dict[str, bytes]:
    """All that a run found, and what it learnt on the way."""
    files = [*(run / "paths").iterdir(), *(run / "calibration").iterdir(), run / "prior.safetensors"]
    return {file.relative_to(run).as_posix(): file.read_bytes() for file in sorted(files)}

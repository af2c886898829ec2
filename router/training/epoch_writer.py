"""The records of a training's epochs: JSON lines, TensorBoard, and Weights & Biases where a project is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from router.artifact.folder import METRICS_FILE, TENSORBOARD
from router.fitting import EpochRecord
from router.heads.head_request import HeadRequest


class EpochWriter(ExitStack):
    """Writes every epoch's record to files, and to Weights & Biases where a project is named; a context manager.

    Args:
        head: The configuration of the training.
        folder: Folder of the files.
        on_epoch: Receives every record first.
        wandb_project: Project of Weights & Biases; None for none.
    """

    def __init__(
        self,
        head: HeadRequest,
        folder: Path,
        on_epoch: Callable[[EpochRecord], None],
        *,
        wandb_project: str | None = None,
    ) -> None:
        super().__init__()
        self._on_epoch = on_epoch
        from torch.utils.tensorboard import SummaryWriter

        self._lines = self.enter_context((folder / METRICS_FILE).open("w", encoding="utf-8"))
        self._board = SummaryWriter(str(folder / TENSORBOARD))
        self.callback(self._board.close)
        self._written = 0
        self._wandb_run: Any = None
        if wandb_project is not None:
            import wandb

            self._wandb_run = wandb.init(project=wandb_project, config=asdict(head))
            self.callback(self._wandb_run.finish)

    def write(self, record: EpochRecord) -> None:
        """Write the record of one epoch to every log, and pass it to ``on_epoch``."""
        self._on_epoch(record)
        self._written += 1
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in record.items():
            self._board.add_scalar(name, value, self._written)
        if self._wandb_run is not None:
            self._wandb_run.log(record)

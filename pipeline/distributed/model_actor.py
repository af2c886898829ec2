"""What all Ray actors of the project are: one frozen copy of the model, on so many threads.

Searching, extracting features, judging programs and answering are subclasses with a method more.
"""

from __future__ import annotations

from typing import Any

from pipeline.model_source import ModelSource
from pipeline.shards.run_config import DEFAULT_CACHE_GIB
from pipeline.tasks import get_task


class ModelActor:
    """Holds a model.

    Args:
        source: The model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        cache_gib: Most memory that work on shared prefixes may take, in GiB.
    """

    def __init__(
        self, source: ModelSource, *, device: str, dtype: str, threads: int, cache_gib: float = DEFAULT_CACHE_GIB
    ) -> None:
        self._source, self._device, self._dtype, self._threads = source, device, dtype, threads
        self._cache_bytes = int(cache_gib * (1 << 30))
        self._model: Any = None

    def load(self) -> Any:
        """Load the model; returns what a caller notes about it.

        Raises:
            UserError: It cannot be loaded, or is outside the contract.
        """
        import transformers

        from pipeline.engine import FrozenModel

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self._use_threads()
        self._model = FrozenModel.load(
            self._source.location,
            device=self._device,
            dtype=self._dtype,
            revision=self._source.hub_revision,
            cache_bytes=self._cache_bytes,
        )

    def _begin(self) -> None:
        """Before each piece of work, which depends on nothing outside it."""
        self._use_threads()
        self._model.forget()

    def _use_threads(self) -> None:
        import torch

        # OpenMP keeps the number of threads by calling thread, and Ray may call from another one.
        torch.set_num_threads(self._threads)


class TaskActor(ModelActor):
    """Holds a model and judges its answers to one task's questions.

    Args:
        source: The model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        task: The questions' task.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
    """

    def __init__(
        self, source: ModelSource, device: str, dtype: str, threads: int, task: str, max_new_tokens: int | None
    ) -> None:
        super().__init__(source, device=device, dtype=dtype, threads=threads)
        self._task = get_task(task, max_new_tokens=max_new_tokens)

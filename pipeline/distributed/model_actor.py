"""The base class of all Ray actors: one copy of the base model, and a number of threads.

Subclasses search, extract features, evaluate programs and answer prompts.
"""

from __future__ import annotations

from typing import Any

from pipeline.distributed.installation import installation
from pipeline.model_source import ModelSource
from pipeline.shards.run_config import DEFAULT_CACHE_GIB
from pipeline.tasks import TaskOptions, get_task
from pipeline.tasks.prompting import Prompting


class ModelActor:
    """Holds a copy of the base model.

    Args:
        source: The model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        cache_gib: Most memory of the prefix cache, in GiB.
    """

    def __init__(
        self, source: ModelSource, *, device: str, dtype: str, threads: int, cache_gib: float = DEFAULT_CACHE_GIB
    ) -> None:
        self._source, self._device, self._dtype, self._threads = source, device, dtype, threads
        self._cache_bytes = int(cache_gib * (1 << 30))
        self._model: Any = None

    def load(self) -> Any:
        """Load the model, and return the actor's ``Installation``; a subclass may return more.

        Raises:
            UserError: The model cannot be loaded, or is outside the contract.
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
        return installation()

    def _begin(self) -> None:
        """Clear what an earlier item of work left, so that the result of the next depends on that item alone."""
        self._use_threads()
        self._model.forget()

    def _use_threads(self) -> None:
        import torch

        # OpenMP keeps the number of threads by calling thread, and Ray may call from another one.
        torch.set_num_threads(self._threads)


class TaskActor(ModelActor):
    """Holds a copy of the base model, and scores its answers to the examples of a task.

    Args:
        source: The model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        task: The task's name.
        max_new_tokens: Most tokens of a generated answer; None for the task's default.
        task_options: The task's options.
        prompting: The settings of the prompts; None for those of a new run.
    """

    def __init__(
        self,
        source: ModelSource,
        device: str,
        dtype: str,
        threads: int,
        task: str,
        max_new_tokens: int | None,
        task_options: TaskOptions,
        prompting: Prompting | None = None,
    ) -> None:
        super().__init__(source, device=device, dtype=dtype, threads=threads)
        self._task = get_task(task, max_new_tokens=max_new_tokens, options=task_options, prompting=prompting)

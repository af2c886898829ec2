"""The routers' features, computed once: windows of each layer's input, along the labelled program.

Execution follows the label (teacher forcing): the router of layer l reads the prompt as the program's own earlier
layers left it, also where the layer itself is skipped. An interrupted extraction is continued where it stopped, and a
second training computes nothing; see ``router.features.array_store``.

Shapes: N prompts, L layers, W windows, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.model_actor import ModelActor
from pipeline.model_source import ModelSource
from pipeline.tasks.tokens import tokens_of
from router.features.array_store import ArrayStore
from router.labels.labelled import Labelled

if TYPE_CHECKING:
    import torch

    from pipeline.engine import FrozenModel

#: Changes whenever the same prompt would give other features.
_VERSION = 2
#: Prompts of an actor's chunk, and so of a file.
CHUNK = 64


class FeatureStore:
    """The features of one model's prompts, in a folder that several trainings share.

    Args:
        root: The folder of all models' features.
        revision: Revision of the model's weights.
        dtype: Precision of the weights.
        num_windows: Number of windows W.
        add_special_tokens: Whether the tokenizer adds its special tokens.

    Raises:
        UserError: The folder cannot be written or read.
    """

    def __init__(self, root: Path, *, revision: str, dtype: str, num_windows: int, add_special_tokens: bool) -> None:
        self.num_windows = num_windows
        self.add_special_tokens = add_special_tokens
        self._arrays = ArrayStore(root, [_VERSION, revision, dtype, num_windows, add_special_tokens])
        self.folder = self._arrays.folder

    def __contains__(self, row: Labelled) -> bool:
        return feature_key(row) in self._arrays

    def add(self, rows: Sequence[Labelled], pooled: np.ndarray[Any, Any]) -> None:
        """Keep features ``[N, L, W, D]`` of rows.

        Raises:
            UserError: A feature is not finite, or the disk is full.
        """
        self._arrays.add(
            [feature_key(row) for row in rows], list(pooled), names=[f"example {row.example_id!r}" for row in rows]
        )

    def absent(self, rows: Sequence[Labelled]) -> list[Labelled]:
        """The rows whose features are not kept, each once."""
        return list({feature_key(row): row for row in rows if row not in self}.values())

    def read(self, rows: Sequence[Labelled]) -> np.ndarray[Any, Any]:
        """The features of rows that are kept, ``[N, L, W, D]`` in float16."""
        return np.stack([self._arrays.read(feature_key(row)) for row in rows])


def feature_key(row: Labelled) -> str:
    """Key of a row's features in a model's store: from the program and the prompt."""
    return hashlib.sha256(f"{row.program}\n{row.prompt}".encode()).hexdigest()[:32]


class FeatureActor(ModelActor):
    """The Ray actor that reads prompts along their programs.

    Args:
        source: The frozen model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        num_windows: Number of windows W.
        add_special_tokens: Whether the tokenizer adds its special tokens.
    """

    def __init__(
        self, source: ModelSource, device: str, dtype: str, threads: int, num_windows: int, add_special_tokens: bool
    ) -> None:
        super().__init__(source, device=device, dtype=dtype, threads=threads)
        self._num_windows = num_windows
        self._add_special_tokens = add_special_tokens

    def work(self, rows: Sequence[Labelled]) -> np.ndarray[Any, Any]:
        """Features of rows, ``[N, L, W, D]`` in float32."""
        self._begin()
        return pooled_along(
            self._model, rows, num_windows=self._num_windows, add_special_tokens=self._add_special_tokens
        )


def pooled_along(
    model: FrozenModel, rows: Sequence[Labelled], *, num_windows: int, add_special_tokens: bool
) -> np.ndarray[Any, Any]:
    """Windows of each layer's input along each row's program, ``[N, L, W, D]`` in float32."""
    import torch

    from router.features.windows import pool_windows, window_weights

    def pooled(state: torch.Tensor) -> torch.Tensor:
        weights = window_weights(np.array([len(state)]), np.array([0]), len(state), num_windows)
        return pool_windows(state[None], torch.from_numpy(weights).to(state.device))[0].cpu()

    tokens = [tokens_of(model.tokenizer, row.prompt, add_special_tokens=add_special_tokens) for row in rows]
    states = model.hidden_states(tokens, [row.program for row in rows], pooled)
    return np.stack([entering(row.counts, of_row.numpy()) for row, of_row in zip(rows, states)])


def entering(counts: Sequence[int], states: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The input of each layer, run or not, ``[L, …]``, from the states between a program's runs, ``[K + 1, …]``."""
    before = np.concatenate([[0], np.cumsum(counts)[:-1]])
    found: np.ndarray[Any, Any] = states[before]
    return found


def extract(
    store: FeatureStore,
    rows: Sequence[Labelled],
    *,
    model: ModelSource,
    device: str,
    dtype: str,
    pool: PoolConfig,
    show: Callable[[int], None] = lambda done: None,
) -> None:
    """Compute features on Ray actors, and keep them.

    Args:
        store: Keeps the features.
        rows: The rows, each once; see ``FeatureStore.absent``.
        model: The frozen model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        pool: Number of actors, and the resources of each.
        show: Receives the number of rows that were computed.

    Raises:
        UserError: The model cannot be loaded, or its states are not finite.
    """
    # Prompts of about the same length together: a batch then holds more of them.
    by_length = sorted(rows, key=lambda row: len(row.prompt))
    chunks = [by_length[start : start + CHUNK] for start in range(0, len(by_length), CHUNK)]
    actors: ActorPool[list[Labelled]] = ActorPool(
        FeatureActor,
        (model, device, dtype, pool.cpus_per_actor, store.num_windows, store.add_special_tokens),
        pool,
    )
    done = 0
    with actors:
        for chunk, pooled in actors.map(chunks):
            store.add(chunk, pooled)
            done += len(chunk)
            show(done)

"""Hidden states for probes, computed once on Ray actors: the residual stream before and after every layer.

Every state is divided by its root mean square. Only the states that a probe needs are kept (its *state selection*):

    tokens   every token in all layers
    top      every token in the last
    mean     the tokens' mean in all layers      (pooled while they are read: a small fraction of the size)
    max      their largest values in all layers
    last     the last token in all layers

The same function computes the states in training and in use, float16 rounding included.

Shapes: S states (of L layers L + 1), T tokens or 1, D hidden size.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.distributed.actor_pool import ActorPool
from pipeline.distributed.cluster import PoolConfig
from pipeline.distributed.model_actor import ModelActor
from pipeline.errors import UserError
from pipeline.model_source import ModelSource
from pipeline.program import LayerProgram
from router.features.array_store import ArrayStore
from router.features.prompt_template import PromptTemplate

if TYPE_CHECKING:
    import torch

STATE_SELECTIONS = ("tokens", "top", "mean", "max", "last")
#: Changes whenever the same text would give other states.
_VERSION = 2
#: Texts that an actor is handed at once, and so in a file; where every token is kept, also no more characters.
CHUNK, CHUNK_CHARACTERS = 64, 32_768
#: What a reader must know of the model beside its states.
_NOTE = "model.json"
_GIB = 1 << 30


def pool_states(state: torch.Tensor, state_selection: str) -> torch.Tensor:
    """One layer's states ``[T, D]``, pooled by a state selection, ``[T or 1, D]`` in float16."""
    state = state.float()
    state = state * state.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
    if state_selection == "mean":
        state = state.mean(0, keepdim=True)
    elif state_selection == "max":
        state = state.amax(0, keepdim=True)
    elif state_selection == "last":
        state = state[-1:]
    return state.half()


def stack_states(states: torch.Tensor, state_selection: str) -> torch.Tensor:
    """All layers' pooled states ``[S, T, D]`` in the store's order: ``[T, S, D]``, or ``[T, 1, D]`` of the last."""
    return (states[-1:] if state_selection == "top" else states).transpose(0, 1)


class StateActor(ModelActor):
    """The Ray actor that reads texts.

    Args:
        source: The frozen model.
        device: ``cpu`` or ``cuda``.
        dtype: The weights' precision.
        threads: Torch threads.
        prompt_template: The prompt template of the texts.
        state_selection: Which states are kept; see ``STATE_SELECTIONS``.
        early: Layers that run; None for all.
    """

    def __init__(
        self,
        source: ModelSource,
        device: str,
        dtype: str,
        threads: int,
        prompt_template: PromptTemplate,
        state_selection: str,
        early: int | None,
    ) -> None:
        # Every text is read once: a cache would not help.
        super().__init__(source, device=device, dtype=dtype, threads=threads, cache_gib=0.0)
        self._prompt_template, self._state_selection, self._early = prompt_template, state_selection, early

    def work(self, texts: Sequence[str]) -> tuple[list[np.ndarray[Any, Any]], int, dict[str, Any]]:
        """States of texts, ``[T, S, D]`` each; the number of texts that were cut; the note on the model."""
        from pipeline.engine.loading import weights_fingerprint

        self._begin()
        model = self._model
        rows = [self._prompt_template.tokens(model.tokenizer, text, model.context_length) for text in texts]
        program = LayerProgram(range(self._early or model.num_layers), model.num_layers)
        states = model.hidden_states(
            [tokens for tokens, _ in rows],
            [program] * len(rows),
            lambda state: pool_states(state, self._state_selection).cpu(),
        )
        kept = [stack_states(of_text, self._state_selection).contiguous().numpy() for of_text in states]
        note = {"num_layers": model.num_layers, "mark": weights_fingerprint(model.hf_model)}
        return kept, sum(cut for _, cut in rows), note


class StateStore:
    """The states of one model's texts, in a folder that several trainings share.

    Args:
        root: The folder of all models' features.
        revision: Revision of the model's weights.
        dtype: Precision of the weights.
        prompt_template: The prompt template of the texts.
        state_selection: Which states are kept; see ``STATE_SELECTIONS``.
        early: Layers after which reading ends, for a probe behind an early exit; None for all.

    Raises:
        UserError: The folder cannot be written or read.
    """

    def __init__(
        self,
        root: Path,
        *,
        revision: str,
        dtype: str,
        prompt_template: PromptTemplate,
        state_selection: str,
        early: int | None = None,
    ) -> None:
        self.prompt_template, self.state_selection, self.early = prompt_template, state_selection, early
        self._arrays = ArrayStore(root, ["states", _VERSION, revision, dtype, state_selection, early])
        self.folder = self._arrays.folder

    def model(self) -> tuple[int, str | None]:
        """The model's depth L, and the fingerprint of its weights; None where they are not compared.

        Raises:
            UserError: Nothing was read yet, or the note is damaged.
        """
        try:
            note = json.loads((self.folder / _NOTE).read_text())
            return int(note["num_layers"]), note["mark"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.folder / _NOTE} cannot be read ({error}); delete the folder") from None

    def absent(self, texts: Sequence[str]) -> list[str]:
        """Texts whose states are not kept, each once."""
        return [text for text in dict.fromkeys(texts) if self.prompt_template.key(text) not in self._arrays]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Number of kept tokens of each text."""
        return self._arrays.lengths([self.prompt_template.key(text) for text in texts])

    def read(self, text: str) -> np.ndarray[Any, Any]:
        """A text's states ``[T, S, D]`` in float16, from the mapped file."""
        return self._arrays.read(self.prompt_template.key(text))

    def fill(
        self,
        texts: Sequence[str],
        *,
        model: ModelSource,
        device: str,
        dtype: str,
        pool: PoolConfig,
        most_gib: float,
        show: Callable[[int], None] = lambda done: None,
    ) -> int:
        """Compute the states that are not kept, on Ray actors.

        Args:
            texts: The texts.
            model: The frozen model.
            device: ``cpu`` or ``cuda``.
            dtype: The weights' precision.
            pool: Number of actors, and the resources of each.
            most_gib: Most that these texts' states may take on the disk.
            show: Receives the number of texts that were read.

        Returns:
            The number of texts that were cut in this call, because they are longer than the model's context.

        Raises:
            UserError: The model cannot be loaded, its states are not finite, or they will not fit on the disk.
        """
        # Texts are sorted by their characters, so that a chunk's texts are of similar length. The longest come first:
        # the first chunk then shows whether there is room for all.
        absent = sorted(self.absent(texts), key=len, reverse=True)
        chunks = _chunks(absent, CHUNK_CHARACTERS if self._whole else math.inf)
        actors: ActorPool[list[str]] = ActorPool(
            StateActor,
            (model, device, dtype, pool.cpus_per_actor, self.prompt_template, self.state_selection, self.early),
            pool,
        )
        done, read, cut, size = 0, 0, 0, 0
        characters = sum(map(len, absent))
        with actors:
            for chunk, (states, cut_now, note) in actors.map(chunks):
                if not done:
                    self._note(note)
                self._arrays.add(
                    [self.prompt_template.key(text) for text in chunk], states, names=[repr(t[:40]) for t in chunk]
                )
                done += len(chunk)
                cut += cut_now
                read += sum(map(len, chunk))
                size += sum(array.nbytes for array in states)
                # The estimate goes by characters where every token is kept, else by texts.
                needed = size + size / read * (characters - read) if self._whole else size / done * len(absent)
                self._check_room(needed, size, most_gib)
                show(done)
        return cut

    @property
    def _whole(self) -> bool:
        """Whether the states of every token are kept."""
        return self.state_selection in ("tokens", "top")

    def _note(self, note: dict[str, Any]) -> None:
        staged = self.folder / f"{uuid.uuid4().hex}.part"
        try:
            staged.write_text(json.dumps(note))
            staged.replace(self.folder / _NOTE)
        except OSError as error:
            raise UserError(f"features cannot be written to {self.folder}: {error.strerror or error}") from None

    def _check_room(self, needed: float, written: int, most_gib: float) -> None:
        room = min(most_gib * _GIB, self._arrays.free_bytes() + written)
        if needed > room:
            where = "the disk has" if room < most_gib * _GIB else "--max-states-gib allows"
            raise UserError(
                f"the states of these texts take about {needed / _GIB:.1f} GiB in {self.folder}, {where} "
                f"{room / _GIB:.1f}; use --aggregator pooling with --scope all, or --scope last, which keep one vector "
                "a layer, fewer tokens (--max-tokens), or fewer rows (--limit)"
            )


def _chunks(texts: Sequence[str], most_characters: float) -> list[list[str]]:
    """Texts in their order, in chunks."""
    chunks: list[list[str]] = []
    characters = 0
    for text in texts:
        if not chunks or characters + len(text) > most_characters or len(chunks[-1]) == CHUNK:
            chunks.append([])
            characters = 0
        chunks[-1].append(text)
        characters += len(text)
    return chunks
